"""Training curves from what Monitor, EvalCallback, spreadsheets and killed programs leave behind."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor

from difftori_gym.card.curve import read_curve

HEAD = '#{"t_start": 1635864924.8, "env_id": "Pendulum-v1"}\nr,l,t\n'


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "monitor.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_monitor_that_appends_to_a_new_file_writes_no_names(tmp_path):
    """Stable-Baselines3 with override_existing=False."""
    env = Monitor(gym.make("Pendulum-v1", max_episode_steps=7), str(tmp_path / "run"), override_existing=False)
    env.action_space.seed(0)
    for seed in range(2):
        env.reset(seed=seed)
        for _ in range(7):
            *_, info = env.step(env.action_space.sample())
    env.close()
    path = tmp_path / "run.monitor.csv"
    assert not path.read_text().startswith("#")
    curve = read_curve(path)
    np.testing.assert_array_equal(curve.steps, [7, 14])
    assert curve.returns[-1] * 2 - curve.returns[0] == pytest.approx(info["episode"]["r"])


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "10,4,0.5\n20,6,0.9\n",
        ("\ufeff" + HEAD + "10,4,0.5\n20,6,0.9\n").replace("\n", "\r\n"),  # through a spreadsheet
        (HEAD + "10,4,0.5\n20,6,0.9\n").replace("\n", "\r\r\n"),  # Windows, before Stable-Baselines3 1.4
        HEAD + "10,4,0.5\n" + HEAD + "20,6,0.9\n",  # two joined
        HEAD + "10,4,0.5\n20,6,0.9\n30,",  # killed, or still going on
        HEAD + "10,4,0.5\n20,6,0.9\n30,-",
        HEAD + "10,4,0.5\n20,6,0.9",
        HEAD.replace("l,t", "l,t,note") + '10,4,0.5,"two\nlines, # one note"\n20,6,0.9,\u2028\n',
    ],
)
def test_lines_of_real_files(tmp_path, text):
    curve = read_curve(write(tmp_path, text))
    np.testing.assert_array_equal(curve.steps, [4, 10])
    np.testing.assert_array_equal(curve.returns, [10, 15])


@pytest.mark.parametrize("torn", ["61,62,36.887254181,182,39.867808", "61,6", "61,,3.5", "\0\0\0"])
def test_a_torn_line_is_named(tmp_path, torn):
    """Of two environments that wrote one file."""
    path = write(tmp_path, f"{HEAD}10,4,0.5\n{torn}\n20,6,0.9\n")
    with pytest.raises(ValueError, match=r"monitor.csv, line 4: expected 3 columns with numbers under r and l, got"):
        read_curve(path)


def test_files_without_a_curve(tmp_path):
    for text in ("", HEAD, HEAD + "1,"):
        with pytest.raises(ValueError, match=r"monitor.csv: expected .*row"):
            read_curve(write(tmp_path, text))
    with pytest.raises(ValueError, match=r"monitor.csv: expected Monitor's csv.*'r;l;t'"):
        read_curve(write(tmp_path, "r;l;t\n1;2;3\n"))
    with pytest.raises(ValueError, match=r"monitor.csv: expected csv in UTF-8.*Save it again"):
        read_curve(write(tmp_path, HEAD, "utf-16"))
    path = tmp_path / "evaluations.npz"
    np.savez(path, timesteps=[1])
    with pytest.raises(ValueError, match=r"evaluations.npz: expected timesteps and results"):
        read_curve(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"evaluations.npz: expected timesteps and results"):
        read_curve(path)
