"""Something is learned, in seconds."""

from stable_baselines3.common.evaluation import evaluate_policy

from difftori_gym.baselines import TDMPC2


def test_difftori_brings_the_point_home(difftori, several):
    settings = dict(policy_kwargs=dict(net_arch=[32], latent_dim=8), batch_size=32, learning_rate=3e-3, tau=0.05)
    planning = dict(planner_kwargs=dict(max_iterations=5), pg_freq=5, horizon=3)
    model = difftori.make(several(4), learning_starts=100, gradient_steps=2, seed=2, **settings, **planning)
    env = several(10)
    env.seed(11)
    before, _ = evaluate_policy(model, env, 30, warn=False)
    model.learn(1400)
    env.seed(11)
    after, _ = evaluate_policy(model, env, 30, warn=False)
    # A step moves the point by at most 0.5, and it starts within 1.5 of home: the best return is about -0.5, and
    # standing still gets -7.5.
    assert after > -2.0
    assert after > before + 2.0


def test_tdmpc2_brings_the_point_home(several):
    planning = dict(planner_kwargs=dict(max_iterations=3, num_samples=32, num_elites=6, num_prior_samples=6))
    networks = dict(policy_kwargs=dict(net_arch=[32], latent_dim=16), batch_size=32, learning_rate=2e-3, tau=0.05)
    settings = dict(learning_starts=200, seed=0, device="cpu", **planning, **networks)
    model = TDMPC2("MlpPolicy", several(4), **settings)
    env = several(10)
    env.seed(11)
    before, _ = evaluate_policy(model, env, 10, warn=False)
    model.learn(480)
    env.seed(11)
    after, _ = evaluate_policy(model, env, 10, warn=False)
    assert after > -2.0
    assert after > before + 2.0
