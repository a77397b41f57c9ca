"""What Stable-Baselines3 promises of an algorithm, asked of every imitation learner on a real pendulum."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy

from difftori_gym.il import DiffTORIImitation


def observations(n=5, seed=0):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(-np.pi, np.pi, n)
    return np.stack([np.cos(angle), np.sin(angle), rng.uniform(-6, 6, n)], axis=1).astype(np.float32)


def rollout(model, steps, n=3, deterministic=True):
    """Actions ``[steps, n, 1]`` along random observations, the state carried."""
    state, start, actions = None, np.ones(n, bool), []
    for step in range(steps):
        action, state = model.predict(observations(n, step), state, start, deterministic)
        start = np.zeros(n, bool)
        actions.append(action)
    return np.array(actions)


def mean_loss(model):
    """Of the trained weights on all windows, several times for the sake of random draws."""
    torch.manual_seed(0)
    batch = model._dataset.batch(np.arange(len(model._dataset)))
    return np.mean([model.policy.network.loss(batch).total.item() for _ in range(5)])


def test_learning_counts_gradient_steps_and_lowers_the_loss(learner, demonstrations):
    model = learner.make(demonstrations)
    before = mean_loss(model)
    model.learn(60, log_interval=30)
    assert model.num_timesteps == 60
    assert model._n_updates == 60
    assert mean_loss(model) < before


def test_two_runs_with_one_seed_are_identical(learner, demonstrations, weights):
    first, second, other = (learner.make(demonstrations, seed=seed).learn(8) for seed in (3, 3, 4))
    first_weights, second_weights, other_weights = weights(first), weights(second), weights(other)
    assert all(torch.equal(first_weights[name], second_weights[name]) for name in first_weights)
    assert not all(torch.equal(first_weights[name], other_weights[name]) for name in first_weights)
    np.testing.assert_array_equal(rollout(first, 4), rollout(second, 4))


def test_saved_model_and_policy_act_the_same_and_go_on(learner, demonstrations, tmp_path):
    model = learner.make(demonstrations).learn(5)
    model.save(tmp_path / "model")
    loaded = learner.cls.load(tmp_path / "model", device="cpu")
    model.policy.save(tmp_path / "policy")
    policy = type(model.policy).load(tmp_path / "policy", device="cpu")
    expected = rollout(model, 5)
    np.testing.assert_array_equal(expected, rollout(loaded, 5))
    np.testing.assert_array_equal(expected, rollout(policy, 5))
    with pytest.raises(ValueError, match="set_demonstrations"):
        loaded.learn(1)
    loaded.set_demonstrations(demonstrations)
    loaded.learn(3, reset_num_timesteps=False)
    assert loaded.num_timesteps == 8
    optimizer = loaded.policy.optimizer.state_dict()["state"]
    assert {int(entry["step"]) for entry in optimizer.values()} == {8}


def test_deterministic_prediction_is_pure(learner, demonstrations):
    model = learner.make(demonstrations).learn(3)
    torch.manual_seed(0)
    first = rollout(model, 5)
    before = torch.get_rng_state()
    np.testing.assert_array_equal(first, rollout(model, 5))
    assert torch.equal(before, torch.get_rng_state())
    model.predict(observations(2, 9), deterministic=False)
    np.testing.assert_array_equal(first, rollout(model, 5))
    _, state = model.predict(observations(), deterministic=True)
    kept = [part.copy() for part in state]
    model.predict(observations(5, 1), state, np.zeros(5, bool), deterministic=True)
    for part, copy in zip(state, kept, strict=True):
        np.testing.assert_array_equal(part, copy)


def test_a_sample_is_answered_alike_alone_and_in_any_batch(learner, demonstrations):
    model = learner.make(demonstrations).learn(10)
    alone = [model.predict(observation, deterministic=True)[0] for observation in observations(7)]
    together, _ = model.predict(observations(7), deterministic=True)
    shuffled, _ = model.predict(observations(7)[[3, 0, 6]], deterministic=True)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(shuffled, together[[3, 0, 6]], atol=1e-4)


def test_episode_starts_forget(learner, demonstrations):
    model = learner.make(demonstrations).learn(3)
    fresh, _ = model.predict(observations(), deterministic=True)
    _, state = model.predict(observations(5, 1), deterministic=True)
    starts = np.array([True, False, True, False, True])
    actions, _ = model.predict(observations(), state, starts, deterministic=True)
    np.testing.assert_allclose(actions[starts], fresh[starts], atol=1e-4)
    with pytest.raises(ValueError, match="state of 2 environments"):
        model.predict(observations(2), state, deterministic=True)


def test_evaluation_with_two_environments(learner, demonstrations, pendulums):
    model = learner.make(demonstrations, pendulums(2)).learn(3)
    results = []
    for subject in (model, model.policy):
        env = pendulums(2)
        results.append(evaluate_policy(subject, env, 4, return_episode_rewards=True)[0])
    assert results[0] == results[1]
    env = pendulums(1)
    action, _ = model.predict(env.reset(), deterministic=False)
    assert env.action_space.contains(action[0])


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
def test_callbacks_and_logger(demonstrations, pendulums, learners, tmp_path):
    for env in (None, pendulums(2)):
        folder = tmp_path / str(env is None)
        callbacks = [
            CheckpointCallback(10, folder),
            EvalCallback(pendulums(1), eval_freq=15, n_eval_episodes=1, log_path=folder, verbose=0),
        ]
        model = learners["bc"].make(demonstrations, env, tensorboard_log=str(folder))
        model.learn(30, callback=callbacks, log_interval=10, progress_bar=True)
        assert {path.name for path in folder.glob("*.zip")} == {f"rl_model_{step}_steps.zip" for step in (10, 20, 30)}
        assert np.load(folder / "evaluations.npz")["timesteps"].tolist() == [15, 30]
        assert [path.name for path in folder.glob("BC_*")] == ["BC_1"]


def test_a_callback_stops_learning(demonstrations, learners):
    model = learners["bc"].make(demonstrations)
    model.learn(50, callback=lambda locals_, globals_: locals_["self"].num_timesteps < 7)
    assert model.num_timesteps == 7


@pytest.mark.parametrize("kind", ["dict", "image"])
def test_other_observations(learner, demonstrations_of, pendulums, kind):
    demonstrations, env = demonstrations_of(kind), pendulums(2, kind)
    model = learner.make(demonstrations, env).learn(2)
    only_demonstrations = learner.make(demonstrations).learn(2)
    assert only_demonstrations.observation_space == model.observation_space
    actions, state = model.predict(env.reset(), deterministic=True)
    model.predict(env.step(actions)[0], state, np.zeros(2, bool), deterministic=True)


def test_what_does_not_fit_is_refused(demonstrations, demonstrations_of, pendulums, learners, tmp_path):
    bc = learners["bc"]
    with pytest.raises(ValueError, match="needs an environment or demonstrations"):
        bc.cls("MlpPolicy", None, None)
    with pytest.raises(ValueError, match=r"demonstrations: expected the observation keys \[''\]"):
        bc.make(demonstrations_of("dict"), pendulums(1), policy_kwargs={})
    with pytest.raises(ValueError, match="n_action_steps <= horizon"):
        bc.make(demonstrations, horizon=2, n_action_steps=3)
    with pytest.raises(ValueError, match="episode 0: expected at least horizon=99"):
        bc.make(demonstrations, horizon=99)
    with pytest.raises(ValueError, match="pass base_policy="):
        DiffTORIImitation("MlpPolicy", None, demonstrations)
    with pytest.raises(ValueError, match="needs a base policy"):
        learners["residual"].cls("MlpPolicy", None, demonstrations)
    with pytest.raises(ValueError, match="base policy BCPolicy: expected"):
        learners["residual"].make(demonstrations, base_policy=bc.make(demonstrations_of("dict")))
    with pytest.raises(ValueError, match="differentiable one, got 'mppi'"):
        DiffTORIImitation(
            "MlpPolicy", None, demonstrations, planner_kwargs=dict(init="zero", solver="mppi", backward_mode="none")
        )
    model = bc.make(demonstrations)
    with pytest.raises(ValueError, match="finite observations"):
        model.predict(np.array([0.0, np.nan, 0.0], np.float32))
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="saved by BC"):
        learners["bc-rnn"].cls.load(tmp_path / "model")
