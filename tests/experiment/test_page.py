import gradleak as gl


def test_accuracies_are_of_as_many_images_as_were_asked_for(tmp_path):
    profiles = {"smoke": dict(dataset="digits", images=2, tuning=2, shown=2)}
    page = gl.experiment.page("page", profiles, profile="smoke", results=str(tmp_path))
    network = gl.models.mlp(page.test.shape, page.test.classes)
    for most, images in ((7, page.test.take(range(7))), (0, page.test), (10**6, page.test)):
        (row,) = page.accuracies([({"arm": str(most)}, network)], most).itertuples()
        assert row.images == len(images)
        assert row.accuracy == gl.train.accuracy(network, images)
