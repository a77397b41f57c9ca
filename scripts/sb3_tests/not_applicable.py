"""Tests that ask for what an off-policy algorithm for continuous actions does not have, with the reasons."""

ON_POLICY = "on-policy algorithms"
DISCRETE = "discrete actions"
DQN_TWIN = "DQN's version of a test that runs in TD3's"
ENTROPY = "entropy coefficient of SAC"
SDE = "state-dependent exploration of A2C, PPO and SAC"
CLIP_RANGE = "clip range of PPO"
HINDSIGHT = "hindsight replay is a buffer of single transitions"
EMPTY = "checks nothing for algorithms with continuous actions: it returns at once for CartPole-v1"
SHARED_EXTRACTOR = "actor and critic that share a feature extractor"
OTHERS = "what only that algorithm has"
NATURE = "an assertion inside NatureCNN, which it does not use"
ONE_NETWORK = "two networks that take observations: it has one"

# Shell patterns of file::test, where "?" stands for "[" and "]", and reasons.
NOT_APPLICABLE = {
    "test_run::test_a2c*": ON_POLICY,
    "test_run::test_advantage_normalization*": ON_POLICY,
    "test_run::test_ppo*": ON_POLICY,
    "test_run::test_sac*": ENTROPY,
    "test_run::test_dqn": DISCRETE,
    "test_run::test_warn_dqn_multi_env": DISCRETE,
    "test_save_load::test_save_load_pytorch_var": ENTROPY,
    "test_save_load::test_save_load_policy?True-*-ALGO?": SDE,
    "test_save_load::test_save_load_q_net*": DISCRETE,
    "test_save_load::test_save_load_large_model": "several GB of weights, to test the file format",
    "test_save_load::test_save_load_no_target_params": "files of old versions of DQN",
    "test_save_load::test_save_load_backward_compatible*": CLIP_RANGE,
    "test_save_load::test_save_load_clip_range_portable*": CLIP_RANGE,
    "test_predict::test_predict?*CartPole-v1-ALGO?": EMPTY,
    "test_predict::test_dqn_epsilon_greedy": DISCRETE,
    "test_spaces::test_sde_multi_dim": SDE,
    "test_spaces::test_discrete_obs_space*": DISCRETE,
    "test_spaces::test_multidim_binary_not_supported": DISCRETE,
    "test_identity::test_discrete*": DISCRETE,
    "test_train_eval_mode::test_dqn_train_with_batch_norm": DQN_TWIN,
    "test_train_eval_mode::test_sac_train_with_batch_norm": "SAC's version of a test that runs in TD3's",
    "test_train_eval_mode::test_a2c_ppo*": ON_POLICY,
    "test_train_eval_mode::test_predict_with_dropout_batch_norm?CartPole-v1-ALGO?": EMPTY,
    "test_callbacks::test_eval_callback_vec_env": DISCRETE,
    "test_callbacks::test_eval_success_logging": HINDSIGHT,
    "test_cnn::test_cnn?True-ALGO?": SHARED_EXTRACTOR,
    "test_cnn::test_features_extractor_target_net?True-ALGO?": SHARED_EXTRACTOR,
    "test_cnn::test_image_like_input?True-ALGO?": NATURE,
    "test_vec_normalize::test_her_normalization": HINDSIGHT,
    # sb3-contrib
    "contrib_test_run::test_crossq": OTHERS,
    "contrib_test_run::test_tqc*": ENTROPY,
    "contrib_test_run::test_sde*": SDE,
    "contrib_test_run::test_qrdqn": DISCRETE,
    "contrib_test_run::test_trpo*": ON_POLICY,
    "contrib_test_run::test_ars*": OTHERS,
    "contrib_test_run::test_advantage_normalization*": ON_POLICY,
    "contrib_test_save_load::test_save_load_pytorch_var": ENTROPY,
    "contrib_test_save_load::test_save_load_q_net*": DISCRETE,
    "contrib_test_train_eval_mode::test_ppo_mask_train_eval_mode": ON_POLICY,
    "contrib_test_train_eval_mode::test_qrdqn_train_with_batch_norm": DISCRETE,
    "contrib_test_train_eval_mode::test_predict_with_dropout_batch_norm?CartPole-v1-ALGO?": EMPTY,
    "contrib_test_cnn::test_cnn?True-ALGO?": SHARED_EXTRACTOR,
    "contrib_test_cnn::test_feature_extractor_target_net?True-ALGO?": SHARED_EXTRACTOR,
    "contrib_test_cnn::test_image_like_input?True-ALGO?": NATURE,
}
NOT_APPLICABLE_TO: dict[str, dict[str, str]] = {
    "DiffTORI": {},
    "TDMPC": {
        "test_cnn::test_features_extractor_target_net?False-ALGO?": ONE_NETWORK,
        "contrib_test_cnn::test_feature_extractor_target_net?False-ALGO?": ONE_NETWORK,
    },
}
