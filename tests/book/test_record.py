"""What a chapter's outputs depend on."""

from gradleak import book
from gradleak.book.record import fingerprint


def test_fingerprint_follows_what_a_chapter_uses(clone):
    chapter = book.find("toy", clone)
    seen = {fingerprint(chapter, "auto", {}), fingerprint(chapter, "auto", {"steps": 5})}
    for name in ("gradleak/attacks/climb.py", "book/results/toy.csv", "notebooks/01_toy.py"):
        path = clone / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(chapter.source.read_text() + "\n")
        seen.add(fingerprint(chapter, "auto", {}))
    assert len(seen) == 5
    (clone / "gradleak" / "cli.py").write_text("")
    (clone / "book" / "results" / "runs.json").write_text("[]")
    assert fingerprint(chapter, "auto", {}) in seen
