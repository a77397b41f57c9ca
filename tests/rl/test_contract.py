"""What Stable-Baselines3 promises of an algorithm, asked of DiffTORI (also with a warm start) and TD-MPC."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from difftori_gym import DiffTORI, DiffTORIPolicy


def observations(n=5, seed=0):
    return np.random.default_rng(seed).uniform(-1.5, 1.5, (n, 2)).astype(np.float32)


def test_learns_and_predicts_in_the_environment_s_units(learner, point_env):
    env = point_env()
    model = learner.make(env).learn(40)
    assert model.num_timesteps == 40
    assert model.logger.name_to_value["train/n_updates"] == 40 - 8
    action, _ = model.predict(env.reset(seed=0)[0])
    assert action.shape == (1,)
    assert env.action_space.contains(action)
    actions, _ = model.predict(observations(7))
    assert actions.shape == (7, 1)
    assert all(env.action_space.contains(action) for action in actions)


def test_two_runs_with_one_seed_are_identical(learner, several, weights, differing):
    runs = [learner.make(several(2), seed=3, train_freq=2, gradient_steps=2).learn(60) for _ in range(2)]
    assert differing(weights(runs[0]), weights(runs[1])) == []
    np.testing.assert_array_equal(runs[0].replay_buffer.actions[:30], runs[1].replay_buffer.actions[:30])
    other = learner.make(several(2), seed=4, train_freq=2, gradient_steps=2).learn(60)
    assert len(differing(weights(runs[0]), weights(other))) > 20


def test_training_moves_every_part(learner, point_env, weights, differing):
    model = learner.make(point_env(fall=1.6))
    before = weights(model)
    model.learn(60)
    still = {name.split(".")[0] + "." + name.split(".")[1] for name in before} - {
        name.split(".")[0] + "." + name.split(".")[1] for name in differing(before, weights(model))
    }
    # TD-MPC has no policy-gradient loss, hence no use for Q-tilde. The moving average of what stands still rounds.
    assert still == ({"raw_critic.critic"} if model.algorithm == "TDMPC" else set())


def test_a_dictionary_with_one_vector_is_the_vector(learner, point_env, weights, differing):
    array = learner.make(point_env("array")).learn(40)
    dictionary = learner.make(point_env("dict"), "MultiInputPolicy").learn(40)
    assert differing(weights(array), weights(dictionary)) == []
    first, _ = array.predict(observations(), deterministic=True)
    second, _ = dictionary.predict({"vec": observations()}, deterministic=True)
    np.testing.assert_array_equal(first, second)


def test_a_saved_model_acts_the_same_and_goes_on(learner, point_env, weights, differing, tmp_path):
    model = learner.make(point_env()).learn(30)
    model.save(tmp_path / "model")
    loaded = learner.cls.load(tmp_path / "model", env=point_env())
    assert differing(weights(model), weights(loaded)) == []
    for deterministic in (True, False):
        torch.manual_seed(1)
        first, _ = model.predict(observations(), deterministic=deterministic)
        torch.manual_seed(1)
        second, _ = loaded.predict(observations(), deterministic=deterministic)
        np.testing.assert_array_equal(first, second)
    for name in ("optimizer", "pi_optimizer", "raw_critic_optimizer"):
        assert str(getattr(model.policy, name).state_dict()) == str(getattr(loaded.policy, name).state_dict())
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded.num_timesteps == 50
    assert differing(weights(model), weights(loaded)) != []


def test_going_on_after_loading_equals_not_having_stopped(learner, point_env, weights, differing, tmp_path):
    env = DummyVecEnv([point_env])
    model = learner.make(env).learn(30)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    random = (np.random.get_state(), torch.get_rng_state())
    state = (env.envs[0].unwrapped.x, env.envs[0].unwrapped.t)
    model._plan_state = None  # a plan to continue from is the one thing that is not saved
    model.learn(10, reset_num_timesteps=False)

    loaded = learner.cls.load(tmp_path / "model", env=env, force_reset=False)
    loaded.load_replay_buffer(tmp_path / "buffer", truncate_last_traj=False)
    env.envs[0].unwrapped.x, env.envs[0].unwrapped.t = state
    np.random.set_state(random[0])
    torch.set_rng_state(random[1])
    loaded.learn(10, reset_num_timesteps=False)
    assert differing(weights(model), weights(loaded)) == []


@pytest.mark.parametrize("steps", [20, 30, 31, 60, 61])
def test_schedules_survive_saving_at_any_step(difftori, point_env, steps, tmp_path):
    settings = dict(horizon=3, exploration_kwargs=dict(initial_std=0.5, final_std=0.1))
    model = difftori.make(point_env(), gradient_steps=0, **settings).learn(steps)
    model.save(tmp_path / "model")
    loaded = DiffTORI.load(tmp_path / "model")
    assert loaded.policy.horizon == model.policy.horizon
    assert loaded.policy.exploration_std == model.policy.exploration_std
    # The last action was chosen one step before.
    progress = min((steps - 1) / 60, 1.0)
    assert model.policy.horizon == int(1 + 2 * progress)
    assert model.policy.exploration_std == pytest.approx(0.5 - 0.4 * progress)


def test_a_policy_file_plans_as_the_policy(learner, point_env, tmp_path):
    model = learner.make(point_env()).learn(20)
    model.policy.save(tmp_path / "policy.pkl")
    policy = DiffTORIPolicy.load(tmp_path / "policy.pkl")
    expected, state = model.predict(observations(), deterministic=True)
    actual, other = policy.predict(observations(), deterministic=True)
    np.testing.assert_array_equal(expected, actual)
    assert (state is None) == (other is None)


def test_evaluation_of_model_and_of_policy_agree_and_plan(learner, point_env, several):
    model = learner.make(point_env(), learning_starts=40).learn(80)
    results = []
    for subject in (model, model.policy):
        env = several(2)
        env.seed(7)
        results.append(evaluate_policy(subject, env, 6, return_episode_rewards=True, warn=False)[0])
    assert results[0] == results[1]
    observation = observations(1)
    plan = model.policy.plan(torch.as_tensor(observation))
    planned = model.policy.unscale_action(plan.best_actions[:, 0].numpy())
    np.testing.assert_array_equal(model.predict(observation, deterministic=True)[0], planned)
    z = model.policy.encode(torch.as_tensor(observation))
    start = model.planner.start(model.policy.model, z, model.policy.horizon)
    assert not torch.equal(plan.best_actions, start.detach())


def test_deterministic_prediction_is_pure(learner, point_env):
    model = learner.make(point_env(), planner_kwargs=dict(horizon_initial=3)).learn(30)
    torch.manual_seed(0)
    first, state = model.predict(observations(), deterministic=True)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    again, same_state = model.predict(observations(), deterministic=True)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])
    np.testing.assert_array_equal(first, again)
    torch.manual_seed(99)
    model.predict(observations(3, seed=5), deterministic=False)
    np.testing.assert_array_equal(model.predict(observations(), deterministic=True)[0], first)
    if model.planner.init != "warm":
        assert state is None
        return
    # A warm start lives in the state, and an episode's start forgets it.
    np.testing.assert_array_equal(state[0], same_state[0])
    other = (-np.sign(state[0]) * 0.9).astype(np.float32)
    untouched = other.copy()
    warm = [model.predict(observations(), (other,), deterministic=True)[0] for _ in range(2)]
    np.testing.assert_array_equal(warm[0], warm[1])
    np.testing.assert_array_equal(other, untouched)
    starts = np.array([True, False, True, False, False])
    mixed, _ = model.predict(observations(), (other,), starts, deterministic=True)
    np.testing.assert_allclose(mixed[starts], first[starts], atol=1e-6)
    np.testing.assert_allclose(mixed[~starts], warm[0][~starts], atol=1e-6)
    if model.algorithm == "DiffTORI":
        assert not np.allclose(warm[0], first)


def test_a_batch_is_answered_as_its_members(learner, point_env):
    model = learner.make(point_env(), planner_kwargs=dict(horizon_initial=3)).learn(40)
    together, _ = model.predict(observations(6), deterministic=True)
    alone = [model.predict(row, deterministic=True)[0] for row in observations(6)]
    np.testing.assert_allclose(together, np.stack(alone), atol=2e-5)


def test_exploration_noise_has_the_scheduled_size(difftori, point_env):
    model = difftori.make(point_env()).learn(20)
    model.policy.exploration_std = 0.1
    same = np.zeros((4000, 2), np.float32)
    best, _ = model.predict(same[:1], deterministic=True)
    noisy, _ = model.predict(same, deterministic=False)
    assert abs(model.policy.scale_action(best)).max() < 0.7  # far enough from the walls for this test
    assert model.policy.scale_action(noisy).std() == pytest.approx(0.1, rel=0.1)


def test_resets_between_runs_and_changes_of_environment(learner, point_env, several):
    model = learner.make(point_env()).learn(20)
    model.set_env(point_env(steps=4))
    assert model._last_obs is None
    model.learn(20, reset_num_timesteps=False)
    assert model.num_timesteps == 40
    with pytest.raises(AssertionError):
        model.set_env(several(3))
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        model.set_env(point_env("image"))


def test_updates_with_several_environments(learner, several):
    model = learner.make(several(2), learning_starts=0, train_freq=3, gradient_steps=-1)
    model.learn(3)
    assert model.num_timesteps == 6
    assert model.logger.name_to_value["train/n_updates"] == 6


@pytest.mark.parametrize(
    "settings",
    [
        dict(buffer_size=1),
        dict(buffer_size=1, batch_size=1),
        dict(buffer_size=5, learning_starts=0),
        dict(train_freq=(1, "episode")),
        dict(optimize_memory_usage=True, replay_buffer_kwargs=dict(handle_timeout_termination=False)),
        dict(action_noise=NormalActionNoise(np.zeros(1), 0.2 * np.ones(1))),
        dict(learning_rate=lambda remaining: 1e-3 * remaining),
        dict(horizon=1),
        dict(horizon=12),
        dict(schedule_steps=0),
        dict(pg_coef=0.0),
        dict(planner_kwargs=dict(init="zero")),
        dict(planner_kwargs=dict(init="random")),
        dict(planner_kwargs=dict(bounds=None)),
        dict(planner_kwargs=dict(bounds="clamp", backward_mode="unroll")),
        dict(planner_kwargs=dict(backward_mode="none")),
    ],
    ids="-".join,  # not the values: a function's text has its address, which differs between workers
)
def test_settings_run(difftori, point_env, weights, settings):
    model = difftori.make(point_env(steps=3), **settings).learn(26)
    assert all(torch.isfinite(value).all() for value in weights(model).values())
    assert np.isfinite(model.predict(observations(), deterministic=True)[0]).all()


@pytest.mark.parametrize("steps", [1, 2])
def test_very_short_episodes(learner, counter_env, steps):
    for terminates in (True, False):
        env = DummyVecEnv([lambda t=terminates: counter_env(0, (steps,), (t,)) for _ in range(2)])
        model = learner.make(env, learning_starts=4).learn(24)
        assert model.policy.model.episodic == terminates


@pytest.mark.parametrize(
    "policy_kwargs",
    [
        dict(net_arch=[]),
        dict(net_arch=[8, 4]),
        dict(net_arch=dict(pi=[8], qf=[4, 4])),
        dict(net_arch=dict(encoder=[], dynamics=[6], reward=[])),
        dict(net_arch=[8], n_critics=1),
        dict(net_arch=[8], n_critics=3, activation_fn=torch.nn.Tanh),
        dict(net_arch=[8], latent_dim=3, optimizer_class=torch.optim.SGD, optimizer_kwargs=dict(momentum=0.9)),
        dict(),
    ],
    ids=str,
)
def test_network_variants(learner, point_env, policy_kwargs, tmp_path):
    model = learner.make(point_env(), policy_kwargs=policy_kwargs).learn(12)
    assert model.policy.raw_critic.critic.members[0] is not model.policy.model.critic.members[0]
    assert len(model.policy.model.critic.members) == policy_kwargs.get("n_critics", 2)
    model.save(tmp_path / "model")
    loaded = learner.cls.load(tmp_path / "model")
    assert loaded.policy_kwargs == model.policy_kwargs == policy_kwargs


def test_action_shapes_and_doubles(learner, point_env):
    env = point_env(action_shape=(2, 2), dtype=np.float64)
    model = learner.make(env).learn(24)
    action, state = model.predict(env.reset(seed=1)[0], deterministic=True)
    assert action.shape == (2, 2)
    assert action.dtype == np.float64
    assert env.action_space.contains(action)
    batch, _ = model.predict(observations(3).astype(np.float64), deterministic=True)
    assert batch.shape == (3, 2, 2)
    if model.planner.init == "warm":
        assert state[0].shape == (1, model.policy.horizon, 4)


def test_actions_at_the_walls_stay_inside_the_space(difftori, point_env):
    env = point_env()
    env.action_space = type(env.action_space)(np.float32([-0.3, -1e-3]), np.float32([0.7, 0.1]))
    policy = difftori.make(env).policy
    for wall in (-1.0, 1.0):
        assert env.action_space.contains(policy.unscale_action(np.full(2, wall, np.float32)))


def test_images(learner, point_env, tmp_path):
    env = point_env("image")
    kwargs = dict(net_arch=[16], latent_dim=6, features_extractor_kwargs=dict(features_dim=8))
    model = learner.make(env, "CnnPolicy", buffer_size=60, policy_kwargs=kwargs).learn(14)
    image, _ = env.reset(seed=0)
    action, _ = model.predict(image, deterministic=True)
    model.save(tmp_path / "model")
    loaded = learner.cls.load(tmp_path / "model", env=env)
    np.testing.assert_array_equal(loaded.predict(image, deterministic=True)[0], action)


def test_callbacks_evaluate_and_write_checkpoints(learner, several, tmp_path):
    env = VecNormalize(several(2), gamma=0.99)
    evaluation_env = VecNormalize(several(2), training=False, norm_reward=False)
    model = learner.make(env)
    evaluation = EvalCallback(
        evaluation_env, n_eval_episodes=2, eval_freq=10, warn=False, best_model_save_path=str(tmp_path)
    )
    checkpoint = CheckpointCallback(
        10, str(tmp_path), save_replay_buffer=True, save_vecnormalize=True, name_prefix="checkpoint"
    )
    model.learn(40, callback=[evaluation, checkpoint], log_interval=2)
    assert evaluation.n_calls == 20
    assert evaluation.best_mean_reward < 0
    learner.cls.load(tmp_path / "best_model.zip")
    loaded = learner.cls.load(
        tmp_path / "checkpoint_20_steps.zip",
        env=VecNormalize.load(tmp_path / "checkpoint_vecnormalize_20_steps.pkl", several(2)),
    )
    loaded.load_replay_buffer(tmp_path / "checkpoint_replay_buffer_20_steps.pkl")
    assert loaded.replay_buffer.pos == 9  # written between the step and its storing
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded.num_timesteps == 40


def test_a_callback_can_stop_it(learner, point_env):
    model = learner.make(point_env(steps=5))
    model.learn(1000, callback=StopTrainingOnMaxEpisodes(3))
    assert model.num_timesteps == 15


def test_logs_every_loss(difftori, point_env):
    model = difftori.make(point_env(fall=1.6), planner_kwargs=dict(horizon_initial=3)).learn(60)
    model.dump_logs()
    logged = []
    record = model.logger.record
    model.logger.record = lambda key, value, exclude=None: (logged.append((key, value)), record(key, value, exclude))[1]
    model.train(4)
    model.dump_logs()
    values = dict(logged)
    for name in ("reward", "value", "consistency", "termination", "pi", "raw_critic", "pg"):
        assert np.isfinite(values[f"train/{name}_loss"])
    assert values["train/pg_grad_norm"] > 0
    assert values["rollout/horizon"] == 3
    assert values["train/n_updates"] == 56


def test_gamma_and_tau_follow_the_object(difftori, point_env, weights, differing, tmp_path):
    model = difftori.make(point_env()).learn(20)
    model.save(tmp_path / "model")
    loaded = DiffTORI.load(tmp_path / "model", gamma=0.5, tau=0.0)
    assert loaded.policy.planner.discount == 0.5
    loaded.set_env(point_env())
    loaded.learn(10, reset_num_timesteps=False)
    moved = [name for name in differing(weights(model), weights(loaded)) if "target" in name]
    assert moved == []
    loaded.tau = 0.5
    loaded.train(2, 8)
    assert any("target" in name for name in differing(weights(model), weights(loaded)))


def test_correlated_exploration(learner, several, weights, differing):
    """Consecutive actions of one environment swing together; those of two environments do not."""
    settings = dict(exploration_kwargs=dict(correlation=0.9), learning_starts=10**6, gradient_steps=0)
    model = learner.make(several(2), **settings).learn(1200)
    actions = model.replay_buffer.actions[:600, :, 0]
    following = np.corrcoef(actions[:-1, 0], actions[1:, 0])[0, 1]
    neighbours = np.corrcoef(actions[:, 0], actions[:, 1])[0, 1]
    assert following > 0.7
    assert abs(neighbours) < 0.4
    short = dict(exploration_kwargs=dict(correlation=0.9), seed=3)
    runs = [learner.make(several(2), **short).learn(40) for _ in range(2)]
    assert differing(weights(runs[0]), weights(runs[1])) == []


@pytest.mark.parametrize("learner", ["difftori", "warm"], indirect=True)  # TD-MPC explores with its samples
def test_collection_carries_plans_within_episodes_only(learner, several):
    """Without noise, the collected actions are what ``predict`` answers when it is handed its own state."""
    quiet = dict(exploration_kwargs=dict(initial_std=0.0, final_std=0.0))
    settings = dict(learning_starts=0, gradient_steps=0, planner_kwargs=dict(horizon_initial=3))
    model = learner.make(several(2, steps=4), **settings, **quiet)
    torch.manual_seed(0)
    for parameter in model.policy.model.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    model.learn(22)
    model.learn(6)  # starts anew in the middle of an episode
    buffer = model.replay_buffer
    state, starts = None, np.ones(2, dtype=bool)
    for t in range(buffer.pos):
        if t == 11:
            state, starts = None, np.ones(2, dtype=bool)
        actions, state = model.predict(buffer.observations[t], state, starts, deterministic=True)
        np.testing.assert_allclose(buffer.actions[t], model.policy.scale_action(actions), atol=1e-5, err_msg=str(t))
        starts = buffer.dones[t] > 0
    assert starts.sum() == 0
