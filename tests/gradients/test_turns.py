import threading
from concurrent.futures import ThreadPoolExecutor

from gradleak.gradients.turns import alone


def test_one_thread_is_inside_at_a_time_and_may_go_in_again():
    inside, most, gate = [], [], threading.Event()

    @alone
    def inner(k):
        inside.append(k)
        gate.wait(0.01)
        most.append(len(inside))
        inside.remove(k)
        return k

    @alone
    def outer(k):
        return inner(k) + inner(k)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(outer, range(8))) == [2 * k for k in range(8)]
    assert most == [1] * 16
