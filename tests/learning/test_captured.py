"""Recordings without a GPU: another recorder stands for CUDA graphs, and shows what would go stale in them."""

import pytest
import torch

from difftori_gym.learning import cuda_graphs
from difftori_gym.learning.captured import MOST_GRAPHS, SWITCH, Captured, EagerRecorder, recorded_by
from difftori_gym.learning.cuda_graphs import CaptureError, takes_tensor_rate
from difftori_gym.learning.running_means import RunningMeans
from difftori_gym.learning.transfers import LateResults, uploaded


def doubled(tensors):
    return [2.0 * tensors[0]]


def called(captured, value, key=None, function=doubled, **kwargs):
    (result,) = captured(function, [torch.full((3,), float(value))], key, **kwargs)
    return result[0].item()


@pytest.fixture
def recorder():
    made = EagerRecorder(torch.device("cpu"))
    with recorded_by(lambda device: made):
        yield made


def test_without_a_recorder_the_function_is_called():
    captured = Captured("f")
    assert not captured.records(torch.device("cpu"))
    assert called(captured, 3) == 6.0


def test_every_call_is_made_once_and_is_replayed_after_warming_up(recorder):
    calls, captured = [], Captured("f")

    def counted(tensors):
        calls.append(1)
        return doubled(tensors)

    assert [called(captured, value, function=counted) for value in range(5)] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert len(calls) == 5
    assert (recorder.recordings, recorder.replays) == (1, 3)


def test_results_are_not_overwritten_by_the_next_call(recorder):
    captured = Captured("f")
    results = [captured(doubled, [torch.full((2,), float(value))])[0] for value in range(6)]
    assert [result[0].item() for result in results] == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]


def test_shapes_and_keys_have_recordings_of_their_own(recorder):
    captured = Captured("f")
    for _ in range(4):
        assert called(captured, 1, "a") == 2.0
        assert called(captured, 1, "b", function=lambda tensors: [3.0 * tensors[0]]) == 3.0
        assert captured(doubled, [torch.ones(7)], "a")[0].shape == (7,)
    assert recorder.recordings == 3


def test_what_lies_elsewhere_is_recorded_anew(recorder):
    captured, weights = Captured("f"), [torch.ones(3)]

    def function(tensors):
        return [weights[0] * tensors[0]]

    for _ in range(4):
        called(captured, 1, function=function, reads=lambda: weights)
    assert recorder.recordings == 1
    weights[0] = torch.full((3,), 5.0)
    assert [called(captured, 1, function=function, reads=lambda: weights) for _ in range(4)] == [5.0] * 4
    assert recorder.recordings == 2


def test_the_oldest_recordings_are_dropped(recorder):
    captured = Captured("f")
    for key in range(MOST_GRAPHS + 5):
        for value in range(4):
            assert called(captured, value, key) == 2.0 * value
    assert len(captured._entries) == MOST_GRAPHS


def test_what_cannot_be_recorded_is_called_and_said_once(recorder, monkeypatch):
    def refuse(function, inputs, optimizers):
        raise CaptureError("it asks the user")

    monkeypatch.setattr(recorder, "record", refuse)
    captured = Captured("The update")
    assert [called(captured, 1), called(captured, 2)] == [2.0, 4.0]
    with pytest.warns(UserWarning, match="The update is not recorded as a CUDA graph.*it asks the user"):
        assert called(captured, 3) == 6.0
    assert called(captured, 4) == 8.0  # a second warning would be an error


def test_what_waits_for_the_device_is_told_before_it_is_recorded(recorder, monkeypatch):
    def warm_up(function, inputs, optimizers, last):
        return function(inputs), "it waits for the device at a.py:3" if last else None

    monkeypatch.setattr(recorder, "warm_up", warm_up)
    captured = Captured("The plan")
    assert called(captured, 1) == 2.0
    with pytest.warns(UserWarning, match=r"waits for the device at a\.py:3"):
        assert called(captured, 2) == 4.0
    assert called(captured, 3) == 6.0
    assert recorder.recordings == 0


def test_a_learning_rate_that_is_a_number_in_the_recording_is_part_of_its_key(recorder):
    weight = torch.nn.Parameter(torch.zeros(()))
    for optimizer, recordings in ((torch.optim.SGD([weight], lr=0.1), 2), (torch.optim.Adam([weight], lr=0.1), 1)):
        assert takes_tensor_rate(optimizer, optimizer.param_groups[0]) is (recordings == 1)
        captured, recorder.recordings = Captured("f"), 0
        for rate in (0.1, 0.2):
            optimizer.param_groups[0]["lr"] = rate
            for _ in range(4):
                called(captured, 1, optimizers=[optimizer])
        assert recorder.recordings == recordings


def test_graphs_are_switched_off_by_the_environment(monkeypatch):
    monkeypatch.setenv(SWITCH, "0")
    assert not Captured("f").records(torch.device("cuda"))


def test_results_on_the_host_are_taken_at_once():
    taken = []
    late = LateResults(lambda indices, values: taken.append((indices, values.tolist())))
    late.put("first", torch.ones(2))
    assert taken == [("first", [1.0, 1.0])]
    late.settle()
    assert len(taken) == 1


def test_an_upload_to_the_cpu_shares_memory():
    array = torch.zeros(2).numpy()
    uploaded(array, torch.device("cpu"))[0] = 4.0
    assert array[0] == 4.0


def test_means_of_several_at_once_are_those_of_one_after_the_other():
    one, other = RunningMeans(), RunningMeans()
    torch.manual_seed(0)
    for _ in range(3):
        values = {name: torch.randn(()) for name in ("a", "b", "c")}
        one.add_all(values)
        for name, value in values.items():
            other.add(name, value)
    assert one.pop() == other.pop()
    assert one.pop() == {}


def test_the_cause_of_a_recording_that_broke_off_is_told():
    def record():
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        finally:
            raise RuntimeError("the recording is invalid")

    with pytest.raises(RuntimeError) as caught:
        record()
    assert cuda_graphs._reason(caught.value) == "operation not permitted when stream is capturing"


def test_rates_and_counts_of_steps_are_on_the_device_only_while_it_is_needed(monkeypatch):
    monkeypatch.setattr(cuda_graphs.CudaGraphs, "__init__", lambda self: None)
    graphs = cuda_graphs.CudaGraphs()
    graphs._device, graphs._rates = torch.device("cpu"), {}
    weight = torch.nn.Parameter(torch.ones(()))
    for optimizer in (torch.optim.Adam([weight], lr=0.5, fused=True), torch.optim.SGD([weight], lr=0.5)):
        (group,) = optimizer.param_groups
        before = dict(group)
        with graphs._on_device([optimizer]):
            if "capturable" in group:
                assert group["capturable"]
                assert group["lr"].item() == 0.5
        assert group == before
    adam = torch.optim.Adam([weight], lr=0.5)
    graphs.before_replay([adam])
    rate = graphs._rates[0, 0][1]
    adam.param_groups[0]["lr"] = 0.25  # as Stable-Baselines3 does
    graphs.before_replay([adam])
    assert graphs._rates[0, 0][1] is rate
    assert rate.item() == 0.25
