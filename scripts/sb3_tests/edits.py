"""How copies of the tests are edited, so that they test our algorithms. Their assertions stay."""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

from sb3_tests.subjects import CRITIC, IDENTITY_STEPS


class Edit(NamedTuple):
    """
    A change to the copy of a test, which must find something to change.

    :param where: file, or file::function, or file::first function, second function
    :param old: regular expression
    :param new: replacement; ``ALGO`` stands for the algorithm's name, ``CRITIC`` and ``IDENTITY_STEPS`` for what the
        tables of those names say
    :param reason: for the report
    """

    where: str
    old: str
    new: str
    reason: str


SHARED = "tests what all algorithms share, written with the one it names"
CONTINUOUS = "an environment with continuous actions"
ON_POLICY_ARGUMENTS = "argument of on-policy algorithms"
ROLLOUT_SIZE = "replay of images instead of a rollout of images"
SPACE_ERROR = "an unsupported space is a ValueError here"
NAMES = "names of the networks: encoder for actor, CRITIC for critic, the same for their targets"
ZERO_VALUES = "values start at zero here, and this environment's rewards are zero, too"

EDITS = (
    Edit("test_run::test_n_critics, test_train_freq, test_train_freq_fail", r"\bSAC\b", "ALGO", SHARED),
    Edit("test_save_load::test_load_invalid_object, test_cast_lr_schedule", r"\bPPO\b", "ALGO", SHARED),
    Edit("test_save_load::test_load_bad_zip, test_save_load_net_arch_none", r"\bPPO\b", "ALGO", SHARED),
    Edit("test_save_load::test_no_resource_warning", r"\b(PPO|SAC)\b", "ALGO", SHARED),
    Edit("test_save_load::test_dqn_target_update_interval", r"\bDQN\b", "ALGO", SHARED),
    Edit(
        "test_save_load::test_no_resource_warning, test_save_load_net_arch_none, test_dqn_target_update_interval",
        r"CartPole-v1",
        "Pendulum-v1",
        CONTINUOUS,
    ),
    Edit(
        "test_save_load::test_dqn_target_update_interval",
        r"model\.target_update_interval ==",
        "model.update_settings.target_update_interval ==",
        "where the setting lies",
    ),
    Edit(
        "test_save_load::test_save_load_policy",
        r"in \[SAC, ALGO\]:\n        actor",
        "in [SAC]:\n        actor",
        "the policy plans: it has no actor that acts alone",
    ),
    Edit("test_predict::test_mixing_gym_vecenv_api", r"\bPPO\b", "ALGO", SHARED),
    Edit("test_predict::test_mixing_gym_vecenv_api", r"CartPole-v1", "Pendulum-v1", CONTINUOUS),
    Edit("test_spaces::test_action_spaces", r"raises\(AssertionError\)", "raises(ValueError)", SPACE_ERROR),
    Edit("test_identity::test_continuous", r"dict\(net_arch=\[64, 64\]\),", r"\g<0> **FULL,", "default settings"),
    Edit(
        "test_identity::test_continuous",
        r"ALGO: 400",
        "ALGO: IDENTITY_STEPS",
        "400 steps, 300 of them with an update, are few for TDMPC: of seeds 0 to 11, three get less than the 90 of 100 "
        "asked for (0: 78, 4: 85, 8: 87); with 1000 steps seeds 0, 1, 4, 5, 6 and 8 all get 100",
    ),
    Edit(
        "test_identity::test_continuous",
        r"if model_class in \[ALGO\]:",
        "if model_class in [SAC]:",
        "explores by itself, like SAC, which is given no noise here; with TD3's in place of its own, TDMPC gets 51 of "
        "100 for its 300 updates, and DiffTORI passes",
    ),
    Edit("test_train_eval_mode", r"model\.actor(_target)?\.", r"model.policy.encoder\1.", NAMES),
    Edit("test_train_eval_mode", r"model\.critic(_target)?\.", r"model.policy.CRITIC\1.", NAMES),
    Edit("test_callbacks::test_callbacks_can_cancel_runs", r"\bSAC\b", "ALGO", SHARED),
    Edit("test_callbacks::test_eval_callback_logs_are_written_with_the_correct_timestep", r"DQN", "ALGO", SHARED),
    Edit("test_callbacks::test_eval_friendly_error", r"A2C(.*)n_steps=50, ", r"ALGO\1", ON_POLICY_ARGUMENTS),
    Edit("test_callbacks::test_eval_callback_chaining", r"PPO(.*), n_steps=.*\)", r"ALGO\1)", ON_POLICY_ARGUMENTS),
    Edit("test_callbacks::test_checkpoint_additional_info", r"\bDQN\b", "ALGO", SHARED),
    Edit(
        "test_callbacks::test_eval_friendly_error, test_checkpoint_additional_info",
        r"CartPole-v1",
        "Pendulum-v1",
        CONTINUOUS,
    ),
    Edit("test_dict_env::test_policy_hint, test_dict_nested", r"\bPPO\b", "ALGO", SHARED),
    Edit("test_dict_env::test_goal_env", r"\[PPO, A2C\]", "[PPO, A2C, ALGO]", SHARED),
    Edit("test_dict_env::test_goal_env", r", n_steps=64", "", ON_POLICY_ARGUMENTS),
    Edit("test_dict_env::test_policy_hint, test_goal_env", r"n_bits=4", "n_bits=4, continuous=True", CONTINUOUS),
    Edit("test_dict_env::test_multiprocessing", r"A2C, SAC, DQN\]", "A2C, ALGO, DQN]", SHARED),
    Edit("test_dict_env::test_dict_nested", r"NotImplementedError(\):\s+_)", r"ValueError\1", SPACE_ERROR),
    Edit("test_cnn::test_vec_transpose_skip", r"\[A2C\]", "[A2C, ALGO]", SHARED),
    Edit("test_cnn::test_vec_transpose_skip", r"n_steps=64,", "buffer_size=250,", ROLLOUT_SIZE),
    Edit("test_cnn::test_channel_first_env", r"discrete=True", "discrete=False", CONTINUOUS),
    Edit("test_cnn::test_channel_first_env", r", n_steps=100", ", buffer_size=250", ROLLOUT_SIZE),
    Edit("test_cnn::test_channel_first_env", r"\bA2C\b", "ALGO", SHARED),
    Edit(
        "test_cnn::test_features_extractor_target_net",
        r'kwargs\["policy_kwargs"\]\["share_features_extractor"\] = share_features_extractor',
        "pass",
        "encoder and Q-tilde never share a feature extractor",
    ),
    Edit(
        "test_cnn::test_features_extractor_target_net",
        r"policy_delay",
        "target_update_interval",
        "the argument that makes targets follow every update",
    ),
    Edit(
        "test_cnn",
        r"import torch as th\n",
        r"\g<0>from stable_baselines3.common.torch_layers import NatureCNN\n",
        "for the next line",
    ),
    Edit(
        "test_cnn::test_features_extractor_target_net",
        r"dict\(features_extractor_kwargs=",
        "dict(features_extractor_class=NatureCNN, features_extractor_kwargs=",
        "two of our encoders have equal biases at first, zero; they should differ in all numbers",
    ),
    Edit(
        "test_cnn::test_features_extractor_target_net",
        r"patch_dqn_names_\(model\)",
        "wake_values(model)",
        ZERO_VALUES,
    ),
    Edit(
        "test_cnn",
        r"model\.(?:policy\.)?actor(_target)?\.(?=features|named|parameters)",
        r"model.policy.encoder\1.",
        NAMES,
    ),
    Edit(
        "test_cnn",
        r"model\.(?:policy\.)?critic(_target)?\.(?=features|parameters)",
        r"model.policy.CRITIC\1.",
        NAMES,
    ),
)

TARGETS_FOLLOW = "targets follow every update, as those of TQC do"
QUANTILES = "quantiles of QR-DQN and TQC"

CONTRIB_EDITS = (
    *(Edit(f"contrib_{file}", r"n_quantiles=\d+,?", "", QUANTILES) for file in ("test_save_load", "test_cnn")),
    Edit("contrib_test_dict_env", r"n_quantiles=\d+,?", "", QUANTILES),
    Edit("contrib_test_run::test_ep_buffers_stats_window_size", r"TRPO, QRDQN", "TRPO, ALGO", SHARED),
    Edit("contrib_test_run::test_ep_buffers_stats_window_size", r"CartPole-v1", "Pendulum-v1", CONTINUOUS),
    Edit("contrib_test_save_load::test_dqn_target_update_interval", r"\bQRDQN\b", "ALGO", SHARED),
    Edit("contrib_test_save_load::test_dqn_target_update_interval", r"CartPole-v1", "Pendulum-v1", CONTINUOUS),
    Edit(
        "contrib_test_save_load::test_dqn_target_update_interval",
        r"model\.target_update_interval ==",
        "model.update_settings.target_update_interval ==",
        "where the setting lies",
    ),
    Edit(
        "contrib_test_save_load::test_save_load_policy",
        r"in \[ALGO\]:\n        actor",
        "in []:\n        actor",
        "the policy plans: it has no actor that acts alone",
    ),
    Edit("contrib_test_train_eval_mode", r"model\.actor(_target)?\.", r"model.policy.encoder\1.", NAMES),
    Edit("contrib_test_train_eval_mode", r"model\.critic(_target)?\.", r"model.policy.CRITIC\1.", NAMES),
    Edit(
        "contrib_test_cnn::test_feature_extractor_target_net",
        r'kwargs\["policy_kwargs"\]\["share_features_extractor"\] = share_features_extractor',
        "pass",
        "encoder and Q-tilde never share a feature extractor",
    ),
    Edit(
        "contrib_test_cnn::test_feature_extractor_target_net",
        r"learning_starts=100,",
        r"\g<0> target_update_interval=1,",
        TARGETS_FOLLOW,
    ),
    Edit(
        "contrib_test_cnn::test_feature_extractor_target_net",
        r"patch_qrdqn_names_\(model\)",
        "wake_values(model)",
        ZERO_VALUES,
    ),
    Edit(
        "contrib_test_cnn",
        r"model\.(?:policy\.)?actor(_target)?\.(?=features|named|parameters)",
        r"model.policy.encoder\1.",
        NAMES,
    ),
    Edit(
        "contrib_test_cnn",
        r"model\.(?:policy\.)?critic(_target)?\.(?=features|parameters)",
        r"model.policy.CRITIC\1.",
        NAMES,
    ),
)


def segment(text: str, function: str) -> tuple[int, int]:
    """:return: where a function of a module begins, its decorators included, and where it ends, in characters"""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            assert node.end_lineno is not None
            return starts[first - 1], starts[node.end_lineno] if node.end_lineno < len(starts) else len(text)
    raise SystemExit(f"error: expected a test {function}, found none: EDITS are for another Stable-Baselines3.")


def edited(name: str, text: str, algorithm: str) -> str:
    """:return: the source of test file ``name`` with the algorithm in it"""
    stand_in = "TQC" if name.startswith("contrib_") else "TD3"
    text = re.sub(
        rf"^(from (?:stable_baselines3|sb3_contrib) import .*), {stand_in}\b", r"\1", text, flags=re.MULTILINE
    )
    text = re.sub(rf"\b{stand_in}\b", "ALGO", text)
    for edit in (*EDITS, *CONTRIB_EDITS):
        file, _, functions = edit.where.partition("::")
        if file != name:
            continue
        for function in functions.split(", "):
            begin, end = segment(text, function) if function else (0, len(text))
            part, count = re.subn(edit.old, edit.new, text[begin:end])
            if count == 0:
                raise SystemExit(f"error: expected {edit.old!r} in {file}::{function}, found nothing to edit.")
            text = text[:begin] + part + text[end:]
    imports = "from sb3_subject import ALGO, FULL, wake_values  # noqa: F401\n"
    text = (imports + text).replace("ALGO", algorithm).replace("CRITIC", CRITIC[algorithm])
    return text.replace("IDENTITY_STEPS", str(IDENTITY_STEPS[algorithm]))
