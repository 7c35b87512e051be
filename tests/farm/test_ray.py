"""The Ray engine on a real cluster of several nodes on this machine, one of which is killed in the middle."""

import threading
import time
from pathlib import Path

import pytest

from farm.experiments import experiment
from farm.experiments.running import StudyRunner
from tests.farm.table_world import same, write

SLOW_METHODS = {
    "best_of_n": {"use": "best_of_n", "n": 8},
    **{f"slow_{i}": {"class": "methods_for_test.Stepping", "steps": 30 + i, "seconds": 0.2} for i in range(4)},
}


@pytest.mark.slow
def test_a_cluster_of_several_nodes_gives_the_same_bits_though_a_node_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    write(tmp_path, methods=SLOW_METHODS, seeds=[1, 2])
    monkeypatch.chdir(tmp_path)
    quick = [f"methods.slow_{i}.seconds=0.2" for i in range(4)]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80_000_000})
    killed: list[str] = []
    try:
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=80_000_000) for _ in range(2)]
        ray.init(address=cluster.address, log_to_driver=False)
        assert len([n for n in ray.nodes() if n["Alive"]]) == 3
        monkeypatch.setenv("FARM_HOME", str(tmp_path / "home-ray"))

        def kill() -> None:
            artifacts = tmp_path / "home-ray" / "artifacts"
            while not list(artifacts.glob("slow_*.partial/checkpoints/steps")):
                time.sleep(0.05)
            time.sleep(1)
            cluster.remove_node(nodes[0], allow_graceful=False)
            killed.append("node")

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        run = StudyRunner(experiment.load("table.yaml", quick), Path("run-ray")).go("ray")
        killer.join(timeout=60)
        assert killed
        assert not run.failures
        assert len([n for n in ray.nodes() if n["Alive"]]) == 2
    finally:
        ray.shutdown()
        cluster.shutdown()
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home-here"))
    StudyRunner(experiment.load("table.yaml", quick), Path("run-here")).go("here")
    same(tmp_path / "run-ray", tmp_path / "run-here")
