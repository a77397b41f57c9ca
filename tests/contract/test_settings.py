"""
A setting that is changed, on the object or by ``load``, is used, or refused in one line that names it.

Used means: a model that is built with one value and changed to another learns the very weights of a model that is
built with the other.
"""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from stable_baselines3.common.noise import NormalActionNoise

from difftori_gym.learning.learner import settings_of
from difftori_gym.trajopt import TrajectoryOptimizer

# Another value than the subjects have, of every setting of every learner.
OTHERS = dict(
    action_coef=1.0,
    action_noise=NormalActionNoise(np.zeros(1), 0.5 * np.ones(1)),
    batch_size=5,
    buffer_size=20,
    cache_base_actions=False,
    clipped_double_q=False,
    consistency_coef=0.3,
    discount=0.5,
    ema_decay=0.5,
    entropy_coef=0.1,
    episode_length=50,
    exploration_final_std=0.7,
    exploration_initial_std=0.1,
    exploration_kwargs=dict(initial_std=0.1, final_std=0.7, correlation=0.5, after_reward=True, catch_up=True),
    gamma=0.5,
    gradient_steps=2,
    head="gaussian",
    horizon=2,
    image_shift=3,
    imitation_coef=1.0,
    kl_coef=3.0,
    latent_dim=5,
    learning_rate=0.03,
    learning_starts=20,
    max_grad_norm=1e-3,
    n_action_steps=1,
    n_obs_steps=4,
    n_steps=3,
    noise_clip=0.01,
    noise_lifetime="episode",
    num_inference_steps=1,
    num_latents=3,
    num_modes=2,
    num_train_steps=50,
    objective="latent",
    optimize_memory_usage=True,
    pg_batch_size=2,
    pg_coef=0.1,
    pg_freq=2,
    pg_max_grad_ratio=None,
    policy_delay=3,
    planner_kwargs=dict(max_iterations=1),
    policy_kwargs=dict(net_arch=[3]),
    prediction="sample",
    replay_buffer_kwargs=dict(handle_timeout_termination=False),
    return_steps=1,
    reward_coef=3.0,
    reward_scale=3.0,
    rho=0.9,
    sampling="langevin",
    schedule_steps=5,
    size="dp3",
    start_noise=0.5,
    t_star=0.5,
    target_policy_noise=0.6,
    target_update_interval=1,
    tau=0.9,
    termination_coef=0.1,
    train_freq=3,
    value_coef=0.7,
)
# Looked at below: they change no weights, or those that a model begins with.
ELSEWHERE = {"device", "demonstrations", "seed", "stats_window_size", "tensorboard_log", "verbose"}
# What is kept in a memory that begins with the model.
MEMORY = {"base_policy", "replay_buffer_class"}
ALWAYS_LIVE = {"batch_size", "learning_rate"}


def learned(model, subject):
    """Its weights after training."""
    if subject.imitates and model.demonstrations is None:
        model.set_demonstrations(subject.make().demonstrations)
    return {name: value.clone() for name, value in model.learn(subject.steps).policy.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_every_setting_has_another_value_here(subject):
    assert settings_of(subject.cls) - set(OTHERS) - ELSEWHERE - MEMORY == set()


def test_a_setting_that_is_changed_is_used_or_refused(subject, tmp_path):
    subject.make().save(tmp_path / "model")
    unchanged = learned(subject.make(), subject)
    assert same(unchanged, learned(subject.cls.load(tmp_path / "model", subject.envs(), "cpu"), subject))
    used, refusals = set(), []
    for name in sorted(settings_of(subject.cls) - ELSEWHERE - MEMORY):
        value = OTHERS[name]

        def set_it(name=name, value=value):
            model = subject.make()
            setattr(model, name, value)
            return model

        def load_it(name=name, value=value):
            return subject.cls.load(tmp_path / "model", subject.envs(), "cpu", **{name: value})

        built = None
        for change in (set_it, load_it):
            try:
                model = change()
            except ValueError as error:
                refusals.append((name, str(error)))
                continue
            changed = learned(model, subject)
            built = built or learned(subject.make(**{name: value}), subject)
            assert same(changed, built), (name, change.__name__)
            used |= set() if same(built, unchanged) else {name}
    for name, refusal in refusals:
        assert re.search(rf"\b{name}\b".replace("_", "[_ ]"), refusal), (name, refusal)
        assert "\n" not in refusal
    assert used >= ALWAYS_LIVE
    family = {"max_grad_norm"} if subject.imitates else {"gamma", "tau", "learning_starts", "train_freq", "buffer_size"}
    assert used >= family


def test_settings_of_the_log(subject, tmp_path, capsys):
    trained = subject.make()
    trained.learn(subject.steps)
    trained.save(tmp_path / "model")
    changes = dict(stats_window_size=3, tensorboard_log=str(tmp_path / "log"), verbose=1)
    loaded = subject.cls.load(tmp_path / "model", subject.envs(), "cpu", **changes)
    for name, value in changes.items():
        setattr(trained, name, value)
    capsys.readouterr()
    for model in (trained, loaded):
        if subject.imitates:
            model.set_demonstrations(trained.demonstrations)
        model.learn(subject.steps, log_interval=1, reset_num_timesteps=False)
        assert model.ep_info_buffer.maxlen == 3
        model.logger.close()
    assert len(list((tmp_path / "log").iterdir())) == 1
    assert capsys.readouterr().out.count("Logging to") == 2


def test_a_seed_that_is_set_is_used(subject):
    for seed in (None, 7):
        models = [subject.make(seed=seed), subject.make(seed=seed)]
        models[1].policy.load_state_dict(models[0].policy.state_dict())
        models[0].seed = 1
        first = learned(models[0], subject)
        models[1].set_random_seed(1)
        assert same(first, learned(models[1], subject))


def test_settings_that_do_not_exist_are_refused(subject, trained, tmp_path):
    trained.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"has no setting \['learning_rat'\]; the settings are .*learning_rate"):
        subject.cls.load(tmp_path / "model", learning_rat=1.0)
    with pytest.raises(ValueError, match="policy"):
        subject.cls.load(tmp_path / "model", policy="CnnPolicy")


def test_the_device_that_is_set_is_where_a_loaded_replay_lies(subject, tmp_path):
    if subject.imitates:
        pytest.skip("it has no replay")
    model = subject.make()
    model.learn(subject.steps)
    model.save_replay_buffer(tmp_path / "replay")
    model.device = torch.device("meta")
    model.load_replay_buffer(tmp_path / "replay")
    assert model.replay_buffer.device.type == "meta"


def test_a_policy_argument_that_is_the_learners_own_is_refused(subject):
    own = ("n_obs_steps", 1) if subject.imitates else ("exploration_std", 0.3)
    with pytest.raises(ValueError, match=rf"sets \['{own[0]}'\] of its policy itself"):
        subject.make(policy_kwargs=dict([own]))


def test_a_value_that_cannot_be_is_set_back(subject, tmp_path):
    model = subject.make()
    name, wrong = ("batch_size", 0) if subject.imitates else ("train_freq", 1.5)
    before = getattr(model, name)
    with pytest.raises(ValueError, match=name):
        setattr(model, name, wrong)
    assert getattr(model, name) == before
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=name):
        subject.cls.load(tmp_path / "model", **{name: wrong})


def test_planning_follows_at_once(subject):
    if subject.imitates or subject.images:
        pytest.skip("it does not plan with a discount")
    planning = {**subject.settings["planner_kwargs"], "horizon_initial": 3}
    model = subject.make(planner_kwargs=planning).learn(subject.steps)
    observation = torch.as_tensor(subject.observations(1))
    before = model.policy.plan(observation).values
    model.gamma = 0.1
    assert model.policy.planner.discount == model.planner.discount == 0.1
    after = model.policy.plan(observation).values
    assert not torch.allclose(before, after)
    model.planner = replace(model.planner, optimizer=TrajectoryOptimizer(solver="adam"))
    assert model.policy.planner.optimizer.solver == "adam"
    assert model.policy.planner.discount == 0.1
    model.horizon = 1
    assert model.policy.plan(observation).actions.shape[1] == model.policy.horizon <= 3
