"""Something is learned, in seconds."""

from stable_baselines3.common.evaluation import evaluate_policy


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
