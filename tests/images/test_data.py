import hashlib
import io
import json
import shutil
import threading
import tracemalloc
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from uqlib import store
from uqlib.files import fingerprint
from uqlib.images import (
    CIFAR10_OVERLAP,
    CIFAR100_OVERLAP,
    SPLITS,
    Files,
    at_hand,
    disputed,
    human_counts,
    join_sets,
    load_images,
    mislabel,
    noisy_labels,
    pixels_digest,
    sources,
    squares,
    verify_images,
    without_classes,
    write_prepared,
)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UQLIB_DATA", raising=False)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)


@pytest.fixture
def prepared(tmp_path, pixels):
    extras = {"human_counts": np.eye(6, 2, dtype=np.int64)}
    labels, classes = [0, 1, 0, 1, 1, 0], ["cat", "dog"]
    write_prepared(tmp_path, pixels, labels, classes, name="cifar10", split="test", extras=extras, source="here")
    return tmp_path


@pytest.fixture
def image_folder(tmp_path, pixels):
    for k, image in enumerate(pixels):
        path = tmp_path / "photos" / ("b_dog" if k % 2 else "a_cat") / f"{9 - k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[: 4 - k % 2]).save(path)
    (tmp_path / "photos" / "a_cat" / "notes.txt").touch()
    return tmp_path / "photos"


# the prepared format


def test_what_was_written_is_loaded(prepared, pixels, monkeypatch):
    monkeypatch.setenv("UQLIB_DATA", str(prepared))
    found = load_images("cifar10")
    assert np.array_equal(found.images, pixels)
    assert isinstance(found.images, np.memmap)
    assert (found.labels.tolist(), found.labels.dtype) == ([0, 1, 0, 1, 1, 0], np.int64)
    assert (found.classes, found.name, found.split, len(found)) == (("cat", "dog"), "cifar10", "test", 6)
    assert found.index.tolist() == list(range(6))
    assert found.digest == hashlib.sha256((prepared / "cifar10/test/images.npy").read_bytes()).hexdigest()
    assert np.array_equal(human_counts(), np.eye(6, 2))
    assert at_hand("test", "human_counts")
    assert not at_hand("test", "noisy_worst")
    assert verify_images("cifar10") == {}
    assert json.loads((prepared / "cifar10/test/meta.json").read_text())["class_counts"] == [3, 3]


@pytest.mark.parametrize(
    ("split", "extras", "expected"),
    [
        ("test", {"human_counts": np.array([[3, 1], [0, 2], [1, 4]])}, [0.25, 0, 0.2]),
        ("train", {f"noisy_random{k}": np.array([0, 1, k % 2]) for k in (1, 2, 3)}, [0, 0, 1 / 3]),
    ],
)
def test_the_share_of_people_who_differ(tmp_path, pixels, monkeypatch, split, extras, expected):
    monkeypatch.setenv("UQLIB_DATA", str(tmp_path))
    labels = np.array([0, 1, 1])
    write_prepared(tmp_path, pixels[:3], labels, ["cat", "dog"], name="cifar10", split=split, extras=extras, source="")
    assert disputed(split, torch.from_numpy(labels)) == pytest.approx(expected)


def test_the_bytes_are_those_of_numpy(prepared, pixels):
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    assert (prepared / "cifar10/test/images.npy").read_bytes() == buffer.getvalue()


def test_an_explicit_root_is_searched_alone(prepared, tmp_path, monkeypatch):
    assert len(load_images("cifar10", root=prepared)) == 6
    monkeypatch.setenv("UQLIB_DATA", str(prepared))
    with pytest.raises(FileNotFoundError, match=r"cifar10/test is not here; searched .*elsewhere/cifar10/test"):
        load_images("cifar10", root=tmp_path / "elsewhere")


def test_changed_files_are_refused_or_named(prepared, pixels):
    place = prepared / "cifar10" / "test"
    content = (place / "images.npy").read_bytes()
    (place / "images.npy").write_bytes(content[:-1] + b"?")
    (place / "human_counts.npy").unlink()
    faults = verify_images("cifar10", root=prepared)
    assert set(faults) == {place / "images.npy", place / "human_counts.npy"}
    assert faults[place / "human_counts.npy"] == "is missing"
    assert "meta.json says" in faults[place / "images.npy"]
    np.save(place / "images.npy", pixels[:5])
    with pytest.raises(ValueError, match=r"has shape \(5, 4, 4, 3\), meta.json says \(6, 4, 4, 3\)"):
        load_images("cifar10", root=prepared)
    np.save(place / "images.npy", pixels.astype(np.float32))
    with pytest.raises(ValueError, match=r"must be uint8 \(n, h, w, 3\); they are float32"):
        load_images("cifar10", root=prepared)
    np.save(place / "images.npy", pixels)
    np.save(place / "labels.npy", np.arange(6))
    with pytest.raises(ValueError, match=r"must lie in \[0, 2\); they reach from 0 to 5"):
        load_images("cifar10", root=prepared)
    np.save(place / "labels.npy", np.zeros(6))
    with pytest.raises(ValueError, match=r"must be int64 \(6,\); they are float64"):
        load_images("cifar10", root=prepared)
    np.save(place / "labels.npy", np.zeros(6, np.int64))
    np.save(place / "human_counts.npy", np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"human_counts of .* has 5 rows where 6 are expected"):
        load_images("cifar10", root=prepared)
    with pytest.raises(FileNotFoundError, match="no prepared split of cifar100"):
        verify_images("cifar100", root=prepared)


def test_an_interrupted_split_is_not_taken_for_a_whole_one(tmp_path, pixels):
    class Broken:
        def __len__(self):
            return 2000

        def __getitem__(self, rows):
            if isinstance(rows, slice) and rows.start:
                raise KeyboardInterrupt
            return pixels[0] if isinstance(rows, int) else np.stack([pixels[0]] * 1024)

    with pytest.raises(KeyboardInterrupt):
        write_prepared(tmp_path, Broken(), np.zeros(2000, int), ["a"], name="cifar10", split="test")
    assert list((tmp_path / "cifar10" / "test").iterdir()) == []


# names, folders, sources


def test_misspelt_names_are_refused():
    with pytest.raises(ValueError, match=r"unknown data set 'cifar'; choose from digits, cifar10, .*folder:PATH"):
        load_images("cifar")
    with pytest.raises(ValueError, match="unknown split 'test' of tiny_imagenet; choose from train, val"):
        load_images("tiny_imagenet")
    with pytest.raises(ValueError, match="unknown split 'val' of digits; choose from train, test"):
        load_images("digits", "val")
    assert tuple(SPLITS) == (
        "digits",
        "cifar10",
        "cifar100",
        "tiny_imagenet",
        "caltech101",
        "pacs",
        "imagenet",
        "imagenet_sample",
    )


def test_without_network_the_way_is_named(monkeypatch):
    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", offline)
    message = (
        r"cifar10/test is not here; searched .*cache/data/cifar10/test \(\$UQLIB_DATA is not set\)\. Set UQLIB_DATA"
    )
    with pytest.raises(FileNotFoundError, match=rf"{message}.*The download failed: .*no route to host"):
        load_images("cifar10")
    with pytest.raises(
        FileNotFoundError, match=r"imagenet/val is not here.* or with one folder of image files a class"
    ):
        load_images("imagenet", "val")


def test_cifar_is_converted_on_first_use(monkeypatch, tmp_path, pixels):
    calls = []

    def archive(root, train, download):
        calls.append((root, train, download))
        return SimpleNamespace(data=pixels, targets=[0, 1, 2, 3, 0, 1], classes=list("abcd"), url="https://x")

    monkeypatch.setattr("torchvision.datasets.CIFAR100", archive)
    first = load_images("cifar100", "train")
    assert calls == [(tmp_path / "cache" / "downloads", True, True)]
    assert np.array_equal(first.images, pixels)
    assert first.labels.tolist() == [0, 1, 2, 3, 0, 1]
    assert load_images("cifar100", "train").digest == first.digest
    assert len(calls) == 1
    assert verify_images("cifar100") == {}


@pytest.fixture
def tiny(tmp_path, monkeypatch, pixels):
    """A Tiny-ImageNet of two classes, laid out as the published archive."""
    path = tmp_path / "published" / "tiny-imagenet-200.zip"
    path.parent.mkdir()
    top = "tiny-imagenet-200"
    with zipfile.ZipFile(path, "w") as archive:

        def put(name, image):
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, "PNG")  # lossless, whatever the name says
            archive.writestr(f"{top}/{name}", stream.getvalue())

        archive.writestr(f"{top}/wnids.txt", "n02\nn01\n")
        archive.writestr(f"{top}/val/val_annotations.txt", "val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n")
        for k in (0, 1):
            put(f"val/images/val_{k}.JPEG", pixels[k])
        for wnid, number, k in (("n02", 0, 2), ("n01", 10, 3), ("n01", 9, 4)):
            put(f"train/{wnid}/images/{wnid}_{number}.JPEG", pixels[k])
    handler = partial(SimpleHTTPRequestHandler, directory=path.parent)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setattr(sources, "TINY_URL", f"http://127.0.0.1:{server.server_port}/{path.name}")
        monkeypatch.setattr(sources, "TINY_MD5", hashlib.md5(path.read_bytes()).hexdigest())
        yield path
        server.shutdown()


def test_tiny_imagenet_is_read_from_its_archive(tiny, pixels):
    val, train = load_images("tiny_imagenet", "val"), load_images("tiny_imagenet", "train")
    assert np.array_equal(val.images, pixels[:2])
    assert val.labels.tolist() == [1, 0]
    assert train.classes == ("n01", "n02")
    assert train.labels.tolist() == [0, 0, 1]
    assert np.array_equal(train.images, pixels[[4, 3, 2]])  # by class, then by number: 9 comes before 10


def test_a_wrong_download_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(sources, "TINY_MD5", "0" * 32)
    with pytest.raises(FileNotFoundError, match=r"The download failed: .*corrupted"):
        load_images("tiny_imagenet", "val")


def test_folders_are_read_as_torchvision_reads_them(image_folder):
    from torchvision.datasets import ImageFolder

    theirs = ImageFolder(image_folder)
    ours = load_images(f"folder:{image_folder}", "all")
    assert ours.classes == tuple(theirs.classes)
    assert ours.labels.tolist() == theirs.targets
    assert (ours.name, ours.split) == ("photos", "all")
    for k, (image, _) in enumerate(theirs):
        assert np.array_equal(ours.images[k], np.asarray(image))
    assert [image.shape for image in ours.images[1:4]] == [(4, 4, 3), (4, 4, 3), (3, 4, 3)]
    assert isinstance(ours.select([3, 0]).images, Files)
    assert np.array_equal(ours.select([3, 0]).images[0], ours.images[3])
    before = ours.digest
    (image_folder / "a_cat" / "5.png").unlink()
    assert load_images(f"folder:{image_folder}", "all").digest != before


def test_a_known_set_may_lie_in_class_folders(image_folder, monkeypatch):
    monkeypatch.setenv("UQLIB_DATA", str(image_folder.parent))
    place = image_folder.parent / "imagenet" / "val"
    place.parent.mkdir()
    image_folder.rename(place)
    found = load_images("imagenet", "val")
    assert (found.name, found.split, found.classes) == ("imagenet", "val", ("a_cat", "b_dog"))


def test_folders_without_images_are_refused(tmp_path):
    (tmp_path / "empty" / "class").mkdir(parents=True)
    with pytest.raises(ValueError, match="it holds 1 folders, no image"):
        load_images(f"folder:{tmp_path / 'empty'}")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_images("folder:nowhere")


# digits


def test_digits_are_scikit_learns():
    train, test = load_images("digits", "train"), load_images("digits", "test")
    theirs = load_digits()
    assert (len(train), len(test)) == (1197, 600)
    assert sorted([*train.index, *test.index]) == list(range(1797))
    assert test.images.shape == (600, 8, 8, 3)
    for part in (train, test):
        assert np.array_equal(part.labels, theirs.target[part.index])
        assert (
            np.abs(part.images[..., 1] / 255 * 16 - theirs.images[part.index]).max() <= 8 / 255 + 1e-9
        )  # half a level
    assert np.abs(np.bincount(test.labels) - np.bincount(theirs.target) / 3).max() <= 1
    assert train.digest != test.digest


def test_digits_never_change():
    # the store knows digits by this digest: a change here orphans every entry
    assert load_images("digits").index[:5].tolist() == [1, 2, 3, 11, 13]
    assert load_images("digits").digest == "4eba0c4566540d8bb53975f9f5322c43b6bbd53c8a9faaadca36f8fb94c452ed"


# labels of people


def test_human_labels_say_what_is_missing(prepared):
    with pytest.raises(ValueError, match="unknown kind 'bad' of noisy labels; choose from aggregate, worst, random1"):
        noisy_labels("bad")
    (prepared / "cifar10/test/human_counts.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"save it as .*human_counts.npy, .* from cifar10h-counts.npy"):
        human_counts(root=prepared)


def test_real_human_labels_have_the_published_rates(prepared_folder):
    test = load_images("cifar10", "test", root=prepared_folder)
    counts = human_counts(root=prepared_folder)
    assert counts.shape == (10000, 10)
    assert 47 <= counts.sum(1).min() <= counts.sum(1).max() <= 63  # Peterson et al. 2019
    assert (counts.argmax(1) == test.labels).mean() == pytest.approx(0.9921, abs=1e-4)
    if not (prepared_folder / "cifar10/train/meta.json").is_file():
        pytest.skip("cifar10/train is not prepared")
    labels = load_images("cifar10", "train", root=prepared_folder).labels
    # percent, Wei et al. 2022, table 1; it prints 9.03 for the aggregate, whose published file has 4,505 in 50,000
    published = {"aggregate": 9.01, "worst": 40.21, "random1": 17.23, "random2": 18.12, "random3": 17.64}
    for kind, percent in published.items():
        rate = (noisy_labels(kind, root=prepared_folder) != labels).mean()
        assert 100 * rate == pytest.approx(percent, abs=0.005)


def test_real_splits_are_whole(prepared_folder):
    test = load_images("cifar10", "test", root=prepared_folder)
    assert (len(test), test.classes[0], test.images.shape) == (10000, "airplane", (10000, 32, 32, 3))
    pixels = "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04"  # values in C order, as published
    assert hashlib.sha256(np.ascontiguousarray(test.images)).hexdigest() == pixels


# rows


def test_joined_splits_follow_each_other(prepared):
    whole = load_images("cifar10", root=prepared)
    one, two = whole.select([0, 1]), whole.select([3])
    joined = join_sets([one, two], split="both")
    assert joined.split == "both"
    assert joined.labels.tolist() == [*one.labels, *two.labels]
    assert (joined.images[2] == whole.images[3]).all()
    assert joined.index.tolist() == [0, 1, 2]
    assert joined.digest != join_sets([two, one], split="both").digest
    small = two.with_images(two.images[:, :2, :2], name=two.name, split="small")
    with pytest.raises(ValueError, match="test and small differ in shape of an image"):
        join_sets([one, small], split="both")


def test_selected_rows_stay_aligned(prepared, pixels):
    whole = load_images("cifar10", root=prepared)
    part = whole.select([4, 1])
    assert np.array_equal(part.images, pixels[[4, 1]])
    assert (part.labels.tolist(), part.index.tolist()) == ([1, 1], [4, 1])
    assert part.extras["human_counts"].shape == (2, 2)
    assert part.select([1]).index.tolist() == [1]
    assert whole.select(whole.labels == 1).index.tolist() == [1, 3, 4]
    assert len({whole.digest, part.digest, whole.select([1, 4]).digest, part.select([1]).digest}) == 4


def test_other_pixels_under_another_name(prepared, pixels):
    whole = load_images("cifar10", root=prepared)
    dark = whole.with_images(pixels // 2, name="cifar10_c", split="dark")
    assert (dark.name, dark.split, dark.labels.tolist()) == ("cifar10_c", "dark", whole.labels.tolist())
    assert dark.digest == pixels_digest(pixels // 2) != pixels_digest(pixels)
    with pytest.raises(ValueError, match="images has 5 rows where 6 are expected"):
        whole.with_images(pixels[:5], name="x", split="y")


def test_the_pixels_digest_sees_values_shapes_and_order(pixels):
    assert pixels_digest(pixels) == pixels_digest(torch.from_numpy(pixels))
    others = [pixels[::-1], pixels.reshape(6, 2, 8, 3), pixels[:5], pixels ^ np.uint8(1), [*pixels[:5], pixels[5, :2]]]
    assert len({pixels_digest(each) for each in [pixels, *others]}) == 6


# overlap


def test_without_classes_leaves_labels_as_they_are(prepared):
    whole = load_images("cifar10", root=prepared)
    dogs = without_classes(whole, ["cat"])
    assert (dogs.labels.tolist(), dogs.classes) == ([1, 1, 1], ("cat", "dog"))
    assert dogs.index.tolist() == [1, 3, 4]
    with pytest.raises(ValueError, match="cifar10 has no class bird, cow; the first of its classes are cat, dog"):
        without_classes(whole, ["cow", "bird", "dog"])


@pytest.mark.parametrize(
    ("known", "overlap", "splits", "left_out"),
    [
        ("cifar10", CIFAR10_OVERLAP, {"cifar100": "test", "tiny_imagenet": "val"}, [100, 24 * 50]),
        ("cifar100", CIFAR100_OVERLAP, {"tiny_imagenet": "val"}, [42 * 50]),
        ("cifar10", CIFAR10_OVERLAP, {"caltech101": "objects"}, [1792]),
        ("cifar100", CIFAR100_OVERLAP, {"caltech101": "objects"}, [3076]),
    ],
)
def test_overlap_names_classes_of_both_sets(prepared_folder, known, overlap, splits, left_out):
    for name, part in {known: "test", **splits}.items():
        if not (prepared_folder / name / part / "meta.json").is_file():
            pytest.skip(f"{name}/{part} is not prepared")
    classes, counts = load_images(known, "test", root=prepared_folder).classes, []
    for name, part in splits.items():
        whole = load_images(name, part, root=prepared_folder)
        assert set(overlap[name].values()) <= set(classes)
        counts.append(len(whole) - len(without_classes(whole, overlap[name])))
    assert counts == left_out


def test_overlap_agrees_with_the_words_of_tiny_imagenet(prepared_folder):
    path = prepared_folder / "tiny_imagenet/val/meta.json"
    if not path.is_file():
        pytest.skip("tiny_imagenet/val is not prepared")
    meta = json.loads(path.read_text())
    words = dict(zip(meta["classes"], meta["class_words"], strict=True))
    own = {wnid: words[wnid] for wnid in CIFAR10_OVERLAP["tiny_imagenet"]}
    hints = (
        "car",
        "wagon",
        "limousine",
        "convertible",
        "goose",
        "stork",
        "penguin",
        "albatross",
        "cat",
        "cougar",
        "terrier",
        "retriever",
        "shepherd",
        "Chihuahua",
        "poodle",
        "frog",
        "boat",
        "gondola",
        "van",
    )
    assert all(any(hint in text for hint in hints) for text in own.values())
    rest = " ".join(text for wnid, text in words.items() if wnid not in own)
    for hint in ("tabby", "retriever", "frog,", "penguin", "limousine", "moving van", "lifeboat", "deer", "airliner"):
        assert hint not in rest


@pytest.mark.parametrize(("file", "keep"), [("meta.json", 50), ("images.npy", 0), ("labels.npy", 140)])
def test_a_file_cut_short_is_named_with_its_place(prepared, file, keep):
    path = prepared / "cifar10/test" / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="cifar10/test is damaged or incomplete"):
        load_images("cifar10", root=prepared)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (np.ones(3, bool), ValueError, r"a mask \(600,\); they are bool \(3,\)"),
        ([[0, 1]], ValueError, r"they are int64 \(1, 2\)"),
        ([0.5, 1.7], TypeError, "rows must be integers or a mask; they are float64"),
    ],
)
def test_rows_that_select_cannot_mean(rows, error, message):
    with pytest.raises(error, match=message):
        load_images("digits").select(rows)


# what is loaded is what was asked for


@pytest.mark.parametrize("split", ["", ".", "..", "../pacs/photo", "a/b", "-x", "tést", "a b", "a\n"])
def test_a_split_is_no_path(prepared, split):
    (prepared / "imagenet").mkdir()
    for call in (
        lambda: load_images("cifar10", split, root=prepared),
        lambda: load_images(f"folder:{prepared}", split),
    ):
        with pytest.raises(ValueError, match=r"split must consist of letters, digits, '_', '-' and '\.'"):
            call()
    with pytest.raises(ValueError, match="split must consist of"):
        write_prepared(prepared, np.zeros((1, 2, 2, 3), np.uint8), [0], ["a"], name="mine", split=split)


@pytest.mark.parametrize("name", ["", "..", "../cifar10", "/etc", "cifar10/test"])
def test_a_name_is_no_path(prepared, name):
    for call in (load_images, verify_images):
        with pytest.raises(ValueError, match="name of a data set must consist of letters"):
            call(name, root=prepared)
    with pytest.raises(ValueError, match="name must consist of letters"):
        write_prepared(prepared, np.zeros((1, 2, 2, 3), np.uint8), [0], ["a"], name=name, split="test")


def test_a_set_of_ones_own_is_loaded_by_its_name(tmp_path, pixels, monkeypatch):
    place = write_prepared(tmp_path / "w", pixels, [0, 1] * 3, ["a", "b"], name="mine", split="first")
    found = load_images("mine", "first", root=tmp_path / "w")
    assert (found.name, found.split, found.labels.tolist()) == ("mine", "first", [0, 1] * 3)
    assert np.array_equal(found.images, pixels)
    with pytest.raises(ValueError, match="unknown split 'test' of mine; choose from first"):
        load_images("mine", root=tmp_path / "w")
    with pytest.raises(
        ValueError, match=r"unknown data set 'mein'; choose from digits, .*imagenet_sample, mine, folder:PATH"
    ):
        load_images("mein", root=tmp_path / "w")
    monkeypatch.setenv("UQLIB_DATA", str(tmp_path / "w"))
    assert load_images("mine", "first").digest == found.digest
    assert verify_images("mine") == {}
    (place / "labels.npy").write_bytes(b"?")
    assert set(verify_images("mine")) == {place / "labels.npy"}


def test_a_copied_folder_does_not_pass_under_another_name(prepared):
    shutil.copytree(prepared / "cifar10", prepared / "cifar100")
    with pytest.raises(ValueError, match=r"cifar100/test is not cifar100/test: its meta.json says cifar10/test"):
        load_images("cifar100", root=prepared)
    shutil.copytree(prepared / "cifar10" / "test", prepared / "cifar10" / "train")
    with pytest.raises(ValueError, match=r"its meta.json says cifar10/test. A copied folder\?"):
        load_images("cifar10", "train", root=prepared)


@pytest.mark.parametrize("file", ["images", "labels", "human_counts"])
def test_bytes_that_were_changed_in_place_are_refused(prepared, file):
    load_images("cifar10", root=prepared)  # so that the digests are known
    path = prepared / "cifar10/test" / f"{file}.npy"
    content = bytearray(path.read_bytes())
    content[-16] ^= 1  # a label becomes another class
    with open(path, "r+b") as stream:
        stream.write(content)
    with pytest.raises(ValueError, match=rf"{file}.npy has sha256 \w{{64}}, meta.json says \w{{64}}"):
        load_images("cifar10", root=prepared)


def test_an_array_that_was_put_beside_the_images_later_is_taken(prepared):
    np.save(prepared / "cifar10/test/votes.npy", np.arange(6))
    (prepared / "cifar10/test/._votes.npy").write_bytes(b"of a Mac")
    assert load_images("cifar10", root=prepared).extras["votes"].tolist() == [*range(6)]


def test_metas_that_point_elsewhere_are_refused(prepared):
    path = prepared / "cifar10/test/meta.json"
    meta = json.loads(path.read_text())
    for name in ("../../../etc/passwd", "/etc/passwd", "..", "sub/x"):
        path.write_text(json.dumps(meta | {"sha256": {name: "0" * 64}}))
        assert verify_images("cifar10", root=prepared) == {path: f"names {name!r}, which is no file of its own folder"}
    for content in ("", "[]", "{}", '{"sha256": 3}', '{"sha256": [[false, 1]]}', "[" * 100_000):
        path.write_text(content)
        assert verify_images("cifar10", root=prepared)[path].startswith("is damaged")
        with pytest.raises(ValueError, match="cifar10/test is damaged or incomplete"):
            load_images("cifar10", root=prepared)
    for name in ("n" * 5000, "a\0b", ""):
        path.write_text(json.dumps(meta | {"sha256": {name: "0"}}))
        assert set(verify_images("cifar10", root=prepared).values()) == {"is missing"}


def header(**changes):
    """An array file whose header says what it likes."""
    said = {"descr": "<i8", "fortran_order": False, "shape": (6,)} | changes
    text = (str(said).ljust(117) + "\n").encode()
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + bytes(48)


@pytest.mark.parametrize(
    "content",
    [
        header(shape=(10**15,)),
        header(shape=(-6,)),
        header(shape=(2**70,)),
        header(shape="six"),
        header(descr="|O"),
        header(descr=">i8"),
        header(descr="<f8"),
        header(descr=[("a", "<i8")]),
        header(shape=()),
        b"PK\3\4" + bytes(60),
        b"\x80\4\x95" + bytes(60),
        b"\x93NUMPY\1\0\xff\xff" + b"(" * 65535,
    ],
)
@pytest.mark.parametrize("file", ["images", "labels", "human_counts"])
def test_crafted_arrays_cost_nothing_and_are_named(prepared, file, content):
    (prepared / f"cifar10/test/{file}.npy").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match="cifar10/test"):
        load_images("cifar10", root=prepared)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    "change",
    [
        {"count": -6}, {"count": 1e300}, {"count": None}, {"image_shape": "443"}, {"image_shape": 4}, {"classes": "ab"},
        {"classes": [1, 2]}, {"classes": None}, {"classes": []}, {"sha256": {}}, {"sha256": {"images.npy": None}}, {"name": None},
    ],
)  # fmt: skip
def test_crafted_metas_are_refused(prepared, change):
    path = prepared / "cifar10/test/meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="cifar10/test"):
        load_images("cifar10", root=prepared)


# what cannot be prepared


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": [0.0, 1.0, 1.7]}, TypeError, "labels must be integers; they are torch.float64"),
        ({"labels": [0, 1]}, ValueError, "labels has 2 rows where 3 are expected"),
        ({"labels": [0, 1, 2]}, ValueError, r"labels must lie in \[0, 2\); row 2 is 2"),
        ({"labels": [True, False, True]}, TypeError, "labels must be integers"),
        ({"classes": "ab"}, TypeError, "classes must be a list of names, one a label; they are 'ab'"),
        ({"classes": [0, 1]}, TypeError, "classes must be a list of names"),
        ({"classes": ["a", "a"]}, ValueError, r"'a' is that of labels \[0, 1\]"),
        ({"images": []}, ValueError, "images is empty"),
        ({"extras": {"votes": [1, 2]}}, ValueError, "votes of .* has 2 rows where 3 are expected"),
        ({"extras": {"votes": 3}}, ValueError, "extra 'votes' must have 3 rows; it is the one value 3"),
        ({"extras": {"votes": [{}, {}, {}]}}, TypeError, "extra 'votes' must hold numbers or texts; it is object"),
        ({"extras": {"images": [1, 2, 3]}}, ValueError, "an extra must not be called 'images'"),
        ({"extras": {"../x": [1, 2, 3]}}, ValueError, r"name of an extra must consist of .*; it is '../x'"),
        ({"files": ["a", "b"]}, ValueError, "files has 2 rows where 3"),
        ({"files": ["a", "b\nc", "d"]}, ValueError, "no name may be of two lines"),
        ({"count": 7}, ValueError, "meta.json says count itself"),
        ({"source": object()}, TypeError, "not JSON serializable"),
        ({"images": np.zeros((3, 4, 4, 3))}, TypeError, r"images must be uint8 .* float64. Pass np.uint8\(np.rint"),
        ({"images": np.zeros((3, 4, 4), np.uint8)}, ValueError, r"images must have shape \(n, h, w, 3\).* Grey\?"),
    ],
)
def test_what_cannot_be_prepared_is_refused_before_a_byte_is_written(tmp_path, unchecked, change, error, message):
    given = {"images": np.zeros((3, 4, 4, 3), np.uint8), "labels": [0, 1, 1], "classes": ["a", "b"]} | change
    with pytest.raises(error, match=message):
        write_prepared(
            tmp_path, given.pop("images"), given.pop("labels"), given.pop("classes"), name="mine", split="all", **given
        )
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize("kind", [list, torch.tensor, np.uint8, np.uint16, np.int32])
def test_labels_of_every_whole_type_are_prepared(tmp_path, pixels, kind):
    write_prepared(
        tmp_path, pixels, kind([0, 1, 1, 0, 1, 0]), ["a", "b"], name="mine", split="all", extras={"t": torch.arange(6)}
    )
    found = load_images("mine", "all", root=tmp_path)
    assert (found.labels.tolist(), found.labels.dtype) == ([0, 1, 1, 0, 1, 0], np.int64)
    assert found.extras["t"].tolist() == [*range(6)]


# folders of one's own images


def put(folder, images):
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)
    return folder


def test_a_folder_is_known_by_its_pixels_labels_and_names(tmp_path, pixels, monkeypatch):
    images = {f"val/{'cat' if k < 3 else 'dog'}/{k}.bmp": image for k, image in enumerate(pixels)}  # all of one size

    def digest(folder, change=lambda path: None):
        path = put(tmp_path / folder, images) / "val"
        change(path)
        return load_images(f"folder:{path}").digest

    def swap(path):
        (path / "cat/0.bmp").rename(path / "x")
        (path / "cat/1.bmp").rename(path / "cat/0.bmp")
        (path / "x").rename(path / "cat/1.bmp")

    def overwrite(path):
        load_images(f"folder:{path}")  # hashed, and known from here on
        with open(path / "cat/0.bmp", "r+b") as stream:
            stream.seek(-9, 2)
            stream.write(b"\1\2\3")

    changes = {
        "swapped": swap,
        "overwritten": overwrite,
        "another class": lambda path: (path / "dog").rename(path / "hound"),
        "another label": lambda path: (path / "dog/5.bmp").rename(path / "cat/5.bmp"),
        "another name": lambda path: (path / "dog/5.bmp").rename(path / "dog/6.bmp"),
        "another pixel": lambda path: Image.fromarray(255 - pixels[0]).save(path / "cat/0.bmp"),
        "fewer": lambda path: (path / "dog/5.bmp").unlink(),
    }
    digests = {name: digest(name, change) for name, change in changes.items()}
    assert len({digest("plain"), *digests.values()}) == 1 + len(changes)
    assert digest("copied") == digest("plain")
    monkeypatch.chdir(tmp_path / "plain")
    monkeypatch.setenv("HOME", str(tmp_path / "plain"))
    for path in ("val", "val/", "./val", "~/val", "../plain/val", str(tmp_path / "plain/val/")):
        found = load_images(f"folder:{path}")
        assert (found.digest, found.name) == (digest("plain"), "plain_val")
    with pytest.raises(ValueError, match=r"folder: must be followed by a path, such as folder:photos; folder:\. is"):
        load_images("folder:")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("my photos", "my_photos"), ("clean/val", "clean_val"), ("fog/3/val", "fog_3_val"), ("fog/3", "fog_3"),
        ("Bilder-Ü/cats", "cats"), ("-x", "x"), ("фото", "_"), ("a.b", "a.b"), ("Clean/Train", "Clean_Train"),
    ],
)  # fmt: skip
def test_a_folder_has_a_name_that_the_store_takes(tmp_path, pixels, path, name):
    put(tmp_path / path / "class", {"0.png": pixels[0]})
    found = load_images(f"folder:{tmp_path / path}")
    assert found.name == name
    store.Key(found.name, found.split, "n", "w", "p", found.digest)


def test_a_folder_is_prepared_like_any_other(tmp_path, image_folder, pixels):
    photos_ = load_images(f"folder:{image_folder}", "all")
    same = photos_.select([0, 1])
    write_prepared(tmp_path, same.images, same.labels, same.classes, name="mine", split="all")
    assert np.array_equal(load_images("mine", "all", root=tmp_path).images, np.stack(same.images[:]))
    with pytest.raises(
        ValueError, match=r"row 0 is \(4, 4, 3\), row 3 is uint8 \(3, 4, 3\), '.*b_dog/4.png'. Pass photos.squares"
    ):
        write_prepared(tmp_path, photos_.images, photos_.labels, photos_.classes, name="odd", split="all")
    assert not list((tmp_path / "odd" / "all").iterdir())
    write_prepared(
        tmp_path, squares(photos_.images, size=224), photos_.labels, photos_.classes, name="odd", split="all"
    )
    assert load_images("odd", "all", root=tmp_path).images.shape == (6, 224, 224, 3)


def test_folders_are_joined_and_keep_their_files(image_folder):
    whole = load_images(f"folder:{image_folder}", "all")
    joined = join_sets([whole.select([0, 4]), whole.select([1])], split="some")
    assert [image.tolist() for image in joined.images] == [whole.images[k].tolist() for k in (0, 4, 1)]
    assert joined.labels.tolist() == whole.labels[[0, 4, 1]].tolist()
    arrays = whole.with_images(np.zeros((6, 4, 4, 3), np.uint8), name=whole.name, split="x")
    with pytest.raises(ValueError, match="all and x differ in kind of images: Files and array"):
        join_sets([whole, arrays], split="some")
    with pytest.raises(ValueError, match="sets is empty"):
        join_sets([], split="some")


def test_the_fingerprint_of_a_set_sees_the_labels(prepared):
    whole = load_images("cifar10", root=prepared)
    others = [
        replace(whole, labels=1 - whole.labels),
        replace(whole, classes=("dog", "cat")),
        whole.select([*range(6)]),
    ]
    prints = [fingerprint.fingerprint(each) for each in (whole, *others)]
    assert len(set(prints)) == 4
    assert fingerprint.fingerprint({"on": load_images("cifar10", root=prepared)}) == fingerprint.fingerprint(
        {"on": whole}
    )


def test_a_text_is_no_list_of_classes(unchecked):
    with pytest.raises(TypeError, match=r"it is the text '12'. One class\? Pass \['12'\]"):
        without_classes(load_images("digits"), "12")
    with pytest.raises(ValueError, match="digits has no class 12"):
        without_classes(load_images("digits"), ["12"])
    assert 1 not in without_classes(load_images("digits"), ["1"]).labels


@pytest.mark.parametrize("counts", [np.zeros((6, 3), int), np.zeros(6, int), np.zeros((6, 2)), -np.ones((6, 2), int)])
def test_votes_that_are_none_are_refused(prepared, counts):
    path = prepared / "cifar10/test"
    meta = json.loads((path / "meta.json").read_text())
    del meta["sha256"]["human_counts.npy"]
    (path / "meta.json").write_text(json.dumps(meta))
    np.save(path / "human_counts.npy", counts)
    with pytest.raises(ValueError, match=r"human_counts.npy of cifar10/test must hold votes, whole numbers \(n, 2\)"):
        human_counts(root=prepared)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2, 0], r"row 1 is 2"),
        ([0.0, 1.0, 1.0], "must be integers"),
        ([[0, 1], [1, 0], [1, 0]], "one class index a row"),
    ],
)
def test_noisy_labels_that_are_none_are_refused(tmp_path, pixels, labels, message):
    write_prepared(
        tmp_path, pixels[:3], [0, 1, 1], ["a", "b"], name="cifar10", split="train", extras={"noisy_worst": labels}
    )
    with pytest.raises((ValueError, TypeError), match=rf"noisy_worst.npy of cifar10/train .*{message}"):
        noisy_labels("worst", root=tmp_path)


def test_labels_made_wrong_are_so_many_and_each_other_class_alike():
    true = torch.arange(3000) % 4
    given, wrong = mislabel(true, 1200, classes=4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(given != true, wrong)
    assert wrong.sum() == 1200
    moved = ((given - true)[wrong] % 4).bincount(minlength=4)
    assert moved[0] == 0
    assert (moved[1:] - 400).abs().max() < 60  # four standard deviations
    assert wrong[:1500].sum() > 500
