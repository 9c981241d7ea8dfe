"""Networks of our own as a start: what is kept of them, what a training from them may change, and what it sees."""

import json

import numpy as np
import pytest
import torch

from uqlib.base.provenance import environment
from uqlib.experiments.keeping import kept_columns
from uqlib.experiments.transfer import (
    adversarial_runs,
    asked_runs,
    clean_runs,
    course_runs,
    imbalance_runs,
    noise_runs,
    synthesis_runs,
    transfers,
    upstream_networks,
)
from uqlib.files.columns import write_table
from uqlib.images.sets import ImageSet, pixels_digest

SHORT = {"epochs": 1, "lr": 0.05, "batch": 20}


def toy_set(count, classes, seed, name="cifar10", split="train"):
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = generator.integers(0, 120, (count, 32, 32, 3))
    images[np.arange(count), :, :, labels % 3] += 12 * (labels[:, None, None] + 1) // 3 * 3
    images = images.clip(0, 255).astype(np.uint8)
    return ImageSet(images, labels, tuple("abcdefghij"[:classes]), name, split, pixels_digest(images), np.arange(count))


@pytest.fixture
def toy(monkeypatch):
    """Two hundred images of ten classes in place of CIFAR-10, and trainings of one epoch."""
    parts = {"train": toy_set(6_000, 10, 0), "test": toy_set(80, 10, 1, split="test")}
    monkeypatch.setattr(transfers, "load_images", lambda name, split: parts[split])
    for name, setting in transfers.SETTINGS.items():
        few = setting._replace(images=200, validation=50)
        if few.network != upstream_networks.NETWORK:
            few = few._replace(network="cifar_resnet8_w8")  # the wide one takes its time
        monkeypatch.setitem(transfers.SETTINGS, name, few)
    transfers.load_parts.cache_clear()
    noise_runs._plain.cache_clear()
    plans = [plan for setting in transfers.SETTINGS.values() for plan in (setting.from_scratch, setting.tuned)]
    tail = transfers.SETTINGS["cifar10"].tail
    for plan in (*plans, tail.from_scratch, tail.tuned):
        monkeypatch.setitem(plan, "epochs", 1)
        monkeypatch.setitem(plan, "batch", 20)
    yield parts
    transfers.load_parts.cache_clear()
    noise_runs._plain.cache_clear()


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    """A network that nobody has trained, kept as `supervised`."""
    model, _ = upstream_networks.create_small(7, seed=11)
    path = tmp_path / "supervised.safetensors"
    write_table(
        path,
        upstream_networks.half_weights(model),
        {"card": json.dumps({"settings": {"network": upstream_networks.NETWORK}} | environment())},
    )
    monkeypatch.setattr(kept_columns, "in_checkout", lambda place: path)
    upstream_networks._read_upstream.cache_clear()
    yield model
    upstream_networks._read_upstream.cache_clear()


def test_half_the_side_is_the_mean_of_four():
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 4, 3), np.uint8)
    naive = images.reshape(3, 3, 2, 2, 2, 3).astype(float).mean((2, 4))
    np.testing.assert_array_equal(upstream_networks.halved(images, rows=2), np.floor(naive + 0.5).astype(np.uint8))


def test_turns_are_those_of_numpy():
    x = torch.rand(5, 3, 4, 4)
    turned = upstream_networks.rotated(x, torch.tensor([0, 1, 2, 3, 1]))
    for k, image in zip([0, 1, 2, 3, 1], range(5), strict=True):
        np.testing.assert_array_equal(turned[image], np.rot90(x[image].numpy(), k, (1, 2)))


def test_a_start_has_the_kept_weights_and_a_fresh_classifier(upstream):
    one, other = (upstream_networks.load_upstream("supervised", 10, seed)[0] for seed in (0, 1))
    for name, kept in upstream.state_dict().items():
        own, second = one.state_dict()[name], other.state_dict()[name]
        if name.startswith("linear."):
            assert own.shape[0] == 10
            assert name.endswith("bias") or not torch.equal(own, second)
        elif kept.is_floating_point():
            torch.testing.assert_close(own, kept.half().float(), rtol=0, atol=0)
            torch.testing.assert_close(own, second, rtol=0, atol=0)


def test_what_is_frozen_stays_to_the_bit_and_is_let_go(toy):
    network = transfers.begin_from("cifar10", "scratch", 0)
    before = {name: each.clone() for name, each in network.model.state_dict().items()}
    parts = transfers.load_parts("cifar10")
    clean_runs.fit_part(network, parts.train.images, parts.train.labels, transfers.TUNED | {"frozen": "yes"}, 0)
    for name, each in network.model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        assert torch.equal(each, before[name]) == (not name.startswith("linear."))
    assert all(p.requires_grad for p in network.model.parameters())


def test_what_is_frozen_is_what_is_asked_even_while_it_trains(toy):
    """The classifier learns from the features that it is asked about, not from those of a batch normalised by itself."""
    network = transfers.begin_from("cifar10", "scratch", 0)
    x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    asked = network.model.eval()(x).detach()
    assert not torch.equal(network.model.train()(x), asked)
    kept = {name: each.clone() for name, each in network.model.state_dict().items()}
    network = transfers.begin_from("cifar10", "scratch", 0)
    with transfers.frozen(network):
        said = network.model.train()(x)
        assert torch.equal(said, network.model.eval()(x))
        assert torch.equal(network.model.train()(x[:3]), said[:3])
    torch.testing.assert_close(said, asked)
    assert network.model.state_dict().keys() == kept.keys()
    assert not torch.equal(network.model.train()(x), said)  # let go


def test_no_image_both_trains_and_judges(toy):
    for images in (0, 100, 200, 1_000):
        parts = transfers.load_parts("cifar10", images)
        assert len(parts.train) == (images or 200)
        assert set(np.bincount(parts.train.labels)) == {len(parts.train) // 10}
        assert not set(parts.train.index) & set(parts.validation.index)
    assert set(transfers.load_parts("cifar10", 100).train.index) < set(
        transfers.load_parts("cifar10", 1_000).train.index
    )


def test_trusted_labels_are_right_and_the_others_wrong_as_often_as_asked(toy, monkeypatch):
    setting = transfers.SETTINGS["cifar10"]._replace(images=4_000)
    monkeypatch.setitem(transfers.SETTINGS, "cifar10", setting)
    transfers.load_parts.cache_clear()
    task = noise_runs.noisy_task("cifar10", "0.6", 10, seed=3)
    clean = transfers.load_parts("cifar10").train.labels
    assert task.trusted.sum() == 400
    assert (task.labels == clean)[task.trusted].all()
    wrong = (task.labels != clean)[~task.trusted].mean()
    assert abs(wrong - 0.6 * 0.9) < 4 * np.sqrt(0.54 * 0.46 / 3_600)
    again, other = (noise_runs.noisy_task("cifar10", "0.6", 10, seed=seed) for seed in (3, 4))
    np.testing.assert_array_equal(task.labels, again.labels)
    assert (task.labels != other.labels).any()


@pytest.mark.parametrize("correction", noise_runs.CORRECTIONS)
def test_every_correction_runs_and_says_how_far_off_its_matrix_is(toy, correction):
    found = noise_runs.run_noise("cifar10", "scratch", correction, "0.4", 0)
    assert len(found.columns["correct"]) == 10
    assert 0 <= found.numbers["error"] <= 1
    assert ("estimate_error" in found.numbers) == (correction != "none")


def test_a_long_training_is_the_plain_one_with_more_epochs(toy, monkeypatch):
    monkeypatch.setattr(noise_runs, "long_epochs", lambda dataset: 1)
    plain, long = (noise_runs.run_noise("cifar10", "scratch", each, "0.4", 0) for each in ("none", noise_runs.LONG))
    np.testing.assert_array_equal(plain.columns["correct"], long.columns["correct"])
    assert plain.numbers == long.numbers
    monkeypatch.setattr(noise_runs, "long_epochs", lambda dataset: 2)
    noise_runs._plain.cache_clear()
    longer = noise_runs.run_noise("cifar10", "scratch", noise_runs.LONG, "0.4", 0)
    assert (longer.columns["correct"] != plain.columns["correct"]).any()


def test_a_run_is_the_same_each_time_and_another_with_another_seed(toy):
    one, again = (noise_runs.run_noise("cifar10", "scratch", "none", "0.4", 0).columns["correct"] for _ in range(2))
    np.testing.assert_array_equal(one, again)
    noise_runs._plain.cache_clear()
    np.testing.assert_array_equal(one, noise_runs.run_noise("cifar10", "scratch", "none", "0.4", 0).columns["correct"])
    assert (one != noise_runs.run_noise("cifar10", "scratch", "none", "0.4", 1).columns["correct"]).any()


def test_all_remedies_see_as_many_images_give_or_take_an_epoch(toy, monkeypatch):
    setting = transfers.SETTINGS["cifar10"]
    monkeypatch.setitem(
        transfers.SETTINGS, "cifar10", setting._replace(tail=setting.tail._replace(largest=20, smallest=7))
    )
    sizes = imbalance_runs.tail_sizes(1.0)
    for remedy in imbalance_runs.REMEDIES:
        task = imbalance_runs.tail_task("cifar10", remedy, 1.0, 0)
        even = remedy in ("oversampling", "smote")
        assert np.bincount(task.labels).tolist() == ([20] * 10 if even else sizes.tolist())
        assert task.share == pytest.approx(sizes.sum() / len(task.labels))
    found = imbalance_runs.run_imbalance("cifar10", "scratch", "smote", "1", 0)
    mean = np.mean([found.numbers[f"error_{k}"] for k in range(10)])
    assert mean == pytest.approx(found.numbers["error"])


def test_attacks_leave_no_more_right_than_there_were(toy, monkeypatch):
    monkeypatch.setattr(adversarial_runs, "ATTACKED", 40)
    monkeypatch.setitem(adversarial_runs.STRONG, "images", 20)
    monkeypatch.setitem(adversarial_runs.STRONG, "steps", 3)
    found = adversarial_runs.run_adversarial("cifar10", "scratch", "head", "attacked", 0)
    for name in ("pgd", "released", "strong"):
        assert found.numbers[name] <= found.numbers["correct"] + (name == "strong")
        assert not (np.unpackbits(found.columns[name])[:20] > np.unpackbits(found.columns["correct"])[:20]).any()


def test_a_course_has_a_number_for_each_epoch(toy, monkeypatch):
    monkeypatch.setattr(course_runs, "ASKED", 80)
    monkeypatch.setattr(course_runs, "BETA", 20)
    monkeypatch.setitem(transfers.SETTINGS["cifar10"].followed, "drops", 3)
    found = course_runs.run_course("cifar10", "scratch", "drops", "0.6", 0)
    assert {len(each) for each in found.columns.values()} == {3}
    assert found.numbers["error"] == found.columns["test_error"][-1]


def test_what_is_told_of_clean_runs(toy, monkeypatch):
    others = {"gaussian": toy_set(30, 10, 5).images}
    monkeypatch.setattr(clean_runs, "other_images", lambda dataset: others)
    found = clean_runs.run_clean("cifar10", "scratch", "trained", 200, 0)
    assert {"correct", "top", "top_scaled", "largest", "top_gaussian", "largest_gaussian"} == set(found.columns)
    assert (np.argsort(found.columns["top"].astype(float))[:1] == found.columns["top"].argmin()).all()
    if found.numbers["temperature"] > 1:
        assert (found.columns["top_scaled"] >= found.columns["top"]).all()
    assert found.numbers["nll_scaled"] <= found.numbers["nll"] + 0.05


def test_every_run_has_a_name_of_its_own_and_starts_from_what_there_is():
    runs = [*asked_runs.asked_runs(), *asked_runs.asked_runs("gpu")]
    assert len({(run.task, run.name) for run in runs}) == len(runs)
    starts = {name for name in upstream_networks.UPSTREAMS if not name.startswith("wide_")}
    assert {run.name.split("/")[0] for run in runs} == {"scratch", *starts, *transfers.READY_STARTS}
    assert all(json.loads(json.dumps(dict(run.settings))) for run in runs)
    assert {f"wide_{name}" for name in starts} < set(upstream_networks.UPSTREAMS)


def test_a_ready_made_network_has_the_published_weights_and_the_classifier_of_the_seed(
    toy, weights_folder, monkeypatch
):
    monkeypatch.setenv("UQLIB_WEIGHTS", str(weights_folder))
    published = transfers.networks.create(transfers.READY_MADE).state_dict()
    ready, fresh = (transfers.begin_from("cifar10", start, 3) for start in transfers.READY_STARTS)
    head = f"{ready.model.default_cfg['classifier']}."
    for name, each in ready.model.state_dict().items():
        whose = fresh.model.state_dict() if name.startswith(head) else published
        torch.testing.assert_close(each, whose[name], rtol=0, atol=0)
    assert ready.preparation.size == fresh.preparation.size == transfers.READY_SIDE
    assert transfers.plan_of("cifar10", "imagenet") == transfers.TUNED
    assert transfers.plan_of("cifar10", "imagenet_scratch") == transfers.FROM_SCRATCH


def test_scale_gpu_has_whole_sets_and_a_wide_network_and_files_of_its_own():
    small, wide = (list(asked_runs.asked_runs(scale)) for scale in ("cpu", "gpu"))
    assert not {run.task for run in small} & {run.task for run in wide}
    assert all(run.settings["network"] == "wrn_40_2" for run in wide)
    own = [run for run in small if run.name.split("/")[0] not in transfers.READY_STARTS]
    assert not any("network" in run.settings for run in own)  # so that runs from before there were two stay valid
    assert {len(transfers.setting_of(each).strengths) for each in transfers.datasets_at("paper")} == {11}
    assert transfers.datasets_at("smoke") == transfers.datasets_at("cpu")
    assert transfers.long_epochs("cifar10") == 100_000 * 15 // 4_000 + 7
    assert transfers.long_epochs("cifar10", 8_000) == transfers.long_epochs("cifar10") // 2


def test_an_upstream_network_is_asked_for_at_the_scale_whose_runs_have_its_shape():
    for setting in transfers.SETTINGS.values():
        own = upstream_networks.upstream_settings(setting.upstream.format("supervised"))["network"]
        assert own == setting.network
    for scale, upstream in {"smoke": "{}", "cpu": "{}", "gpu": "wide_{}", "paper": "wide_{}"}.items():
        jobs = {job.name for job in asked_runs.pretraining_jobs(scale) if job.name.startswith("networks/")}
        names = ("supervised", "unrelated", "rotations", "adversarial")
        assert jobs == {f"networks/{upstream.format(name)}" for name in names}
        assert [each.title for each in transfers.settings_at(scale)] == ["CIFAR-10", "CIFAR-100"]


def test_runs_on_whole_sets_begin_with_the_wide_upstream_network(toy, tmp_path, monkeypatch):
    few = upstream_networks.WIDE | {"network": "cifar_resnet8_w8"}
    monkeypatch.setitem(upstream_networks.UPSTREAMS, "wide_supervised", few)
    model, _ = upstream_networks.create_small(7, seed=3, network="cifar_resnet8_w8")
    path = tmp_path / "wide_supervised.safetensors"
    card = {"settings": upstream_networks.upstream_settings("wide_supervised")} | environment()
    write_table(path, upstream_networks.half_weights(model), {"card": json.dumps(card)})
    monkeypatch.setattr(kept_columns, "in_checkout", lambda place: path if place.endswith(path.name) else None)
    upstream_networks._read_upstream.cache_clear()
    network = transfers.begin_from("cifar10_whole", "supervised", 0)
    torch.testing.assert_close(network.model.conv1.weight, model.conv1.weight.half().float(), rtol=0, atol=0)
    found = noise_runs.run_noise("cifar10_whole", "supervised", "forward", "0.3", 0)
    assert found.numbers["tested"] == 80
    with pytest.raises(FileNotFoundError, match="uqlib pretrain wide_rotations"):
        transfers.begin_from("cifar10_whole", "rotations", 0)
    upstream_networks._read_upstream.cache_clear()


def test_jobs_are_found_by_task_and_run_and_others_are_refused():
    (one,) = asked_runs.choose_jobs("noise_cifar10", "scratch/none/0.4/0")
    assert one.command == "uqlib pretrain noise_cifar10 scratch/none/0.4/0"
    (network,) = asked_runs.choose_jobs("rotations")
    assert network.place == "data/networks/rotations.safetensors"
    with pytest.raises(ValueError, match=r"noise_cifar11.*noise_cifar10"):
        asked_runs.choose_jobs("noise_cifar11")
    with pytest.raises(ValueError, match="run of noise_cifar10"):
        asked_runs.choose_jobs("noise_cifar10", "scratch/none/0.41/0")
    (whole,) = asked_runs.choose_jobs("noise_cifar10_whole", "scratch/none/0.3/0")
    assert whole.place == "noise_cifar10_whole/scratch/none/0.3/0"
    (brought,) = asked_runs.choose_jobs("wide_imagenet32")
    assert brought.name not in {job.name for job in asked_runs.pretraining_jobs("gpu")}


def test_damaged_images_lie_beside_their_labels_all_versions_of_one_image_together(monkeypatch):
    base = toy_set(30, 10, 3, split="test")
    base = base.with_images(base.images // 2, name="toy", split="test")  # room for what is added
    severities = len(synthesis_runs.SEVERITIES)

    def corrupted(names):
        for k, _ in enumerate(names):
            versions = np.concatenate([base.images.astype(int) + (10 * k + s) for s in range(severities)]).astype(
                np.uint8
            )
            yield base.select(np.tile(np.arange(30), severities)).with_images(versions, name="c", split=str(k))

    monkeypatch.setattr(synthesis_runs, "load_corrupted", corrupted)
    images, labels = synthesis_runs._shifted("images"), synthesis_runs._shifted("labels")
    assert labels.reshape(30, -1).T.tolist() == [base.labels.tolist()] * synthesis_runs.VERSIONS
    least = images.reshape(30, synthesis_runs.VERSIONS, -1).astype(int) - base.images.reshape(30, 1, -1)
    assert least.min(-1).max(-1).tolist() == [10 * (len(synthesis_runs.SHIFTS) - 1) + severities - 1] * 30


def test_a_mean_of_networks_is_that_of_their_probabilities():
    one, other = torch.randn(6, 4, dtype=torch.float64), 3 * torch.randn(6, 4, dtype=torch.float64)
    mean = synthesis_runs._mean([one, other]).softmax(-1)
    torch.testing.assert_close(mean, (one.softmax(-1) + other.softmax(-1)) / 2)
    assert synthesis_runs._mean([one]) is one


def test_every_set_of_additions_has_a_name():
    names = [synthesis_runs.addition_name(added) for added in synthesis_runs.every_set()]
    assert names[0] == "alone"
    assert names[-1] == "+".join(synthesis_runs.ADDED)
    assert len(set(names)) == 2 ** len(synthesis_runs.ADDED)


def test_a_combination_is_fitted_on_validation_images_alone(toy, monkeypatch):
    """A shift of all logits of the test images leaves what is fitted as it is; a doubt is judged by its order alone."""
    generator = torch.Generator().manual_seed(0)
    labels = {"validation": transfers.load_parts("cifar10").validation.labels}
    answers = {
        name: synthesis_runs.Answers(
            torch.randn(n, 10, generator=generator, dtype=torch.float64), torch.randn(n, 5, generator=generator)
        )
        for name, n in {"validation": len(labels["validation"]), "test": 80}.items()
    }
    known = torch.nn.functional.one_hot(torch.from_numpy(np.array(labels["validation"])), 10)
    answers["validation"] = answers["validation"]._replace(logits=answers["validation"].logits + 2 * known)
    every = frozenset({"duo", "temperature"})
    one = synthesis_runs.combine_answers(every, [answers], answers)
    moved = answers | {"test": answers["test"]._replace(logits=3 * answers["test"].logits)}
    other = synthesis_runs.combine_answers(every, [moved], moved)
    torch.testing.assert_close(other["test"], 3 * one["test"])
    monkeypatch.setitem(synthesis_runs.HEAD, "batch", 10)
    doubt = synthesis_runs.doubts([answers], one, 0)
    assert {name: len(each) for name, each in doubt.items()} == {"validation": len(labels["validation"]), "test": 80}


def test_prose_names_the_network_of_its_scale():
    ten, wide = transfers.settings_at("cpu")[0], transfers.settings_at("gpu")[0]
    assert transfers.network_facts(ten)["network"] == "ResNet-8 of 32 channels"
    assert transfers.network_facts(wide)["network"] == "WRN-40-2"
    assert transfers.network_facts(wide)["weights"] == pytest.approx(2.2, abs=0.1)  # as the paper's authors count them


def test_how_rates_were_chosen_is_said_as_it_was():
    """A winner at the edge is said to be one: a larger rate might have been better."""
    ten = transfers.settings_at("cpu")[0]
    told = transfers.tuning_text(ten)
    assert (
        "tuning is 0.03, of 4 that were tried, the rate from scratch is 0.1, of 2 that were tried, the largest:" in told
    )
    low = ten._replace(tuned=ten.tuned | {"lr": 0.003})
    assert "0.003, of 4 that were tried, the least," in transfers.tuning_text(low)
    assert "none was chosen" in transfers.tuning_text(transfers.settings_at("gpu")[0])


def test_upstream_networks_are_as_unequal_as_their_cards_say(monkeypatch):
    def card(name):
        attack = {"steps": 3, "step_size": 4 / 255} if "adversarial" in name else None
        training = {"epochs": 6 if attack else 15}
        return {
            "settings": {"training": training, "attack": attack},
            "measured": {"accuracy": 0.13 if attack else 0.39},
        }

    monkeypatch.setattr(upstream_networks, "upstream_card", card)
    assert upstream_networks.upstream_facts("wide_{}") == {
        "epochs_supervised": 15, "epochs_adversarial": 6, "clean_supervised": 39, "clean_adversarial": 13,
        "steps_upstream": 3, "step_upstream": pytest.approx(4),
    }  # fmt: skip
