"""What a notebook's container may, asked of Docker: each limit was set, and what is secret stays where it belongs."""

import json
import secrets
import subprocess
from typing import Any

import pytest

from tests.acceptance.conftest import Lab
from tests.installation import Installation, docker

MIB = 1024 * 1024


@pytest.fixture
def container(lab: Lab) -> dict[str, Any]:
    """The one container of the lab's notebook."""
    (found,) = lab.installation.containers(lab.notebook)
    return found


def token_of(container: dict[str, Any]) -> str:
    (token,) = [line.removeprefix("SOPHON_TOKEN=") for line in container["Config"]["Env"] if "TOKEN" in line]
    return token


def test_a_container_has_limits_and_no_privileges(container: dict[str, Any]) -> None:
    host = container["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (2048 * MIB, 2048 * MIB)  # no swap beside the memory
    assert host["NanoCpus"] == 2_000_000_000
    assert host["PidsLimit"] == 512
    assert (host["CapDrop"], host["CapAdd"], host["Privileged"]) == (["ALL"], None, False)
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"]
    assert host["Tmpfs"] == {"/tmp": "size=256m,mode=1777"}
    assert not any(host[shared] for shared in ("PidMode", "UTSMode", "Devices", "Binds"))
    assert host["IpcMode"] == "private"
    assert host["RestartPolicy"]["Name"] == "no"  # what ended is told, and started by whoever wants it


def test_nothing_in_it_is_root_or_can_become_it(container: dict[str, Any]) -> None:
    assert container["Config"]["User"] not in ("", "0", "root")
    status = docker("exec", container["Id"], "cat", "/proc/1/status")
    of_first = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert "0" not in of_first["Uid"].split()
    assert {of_first[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert of_first["NoNewPrivs"] == "1"


def test_it_is_reached_from_this_machine_alone_and_reaches_no_other_notebook(
    lab: Lab, container: dict[str, Any]
) -> None:
    bound = [binding for bindings in container["NetworkSettings"]["Ports"].values() for binding in bindings or ()]
    assert [binding["HostIp"] for binding in bound] == ["127.0.0.1"]
    name = f"sophon-{lab.installation.id}"
    assert list(container["NetworkSettings"]["Networks"]) == [name]
    (network,) = json.loads(docker("network", "inspect", name))
    assert network["Options"] == {"com.docker.network.bridge.enable_icc": "false"}
    assert network["Labels"] == {"sophon.installation": lab.installation.id}


def test_it_has_one_volume_of_its_own_and_labels_that_say_whose_it_is(lab: Lab, container: dict[str, Any]) -> None:
    (mount,) = container["Mounts"]
    volume = f"sophon-{lab.installation.id}-{lab.notebook}"
    assert (mount["Type"], mount["Name"], mount["Destination"]) == ("volume", volume, "/home/researcher")
    whose = {"sophon.installation": lab.installation.id, "sophon.notebook": lab.notebook}
    (found,) = [each for each in lab.installation.volumes() if each["Name"] == volume]
    assert found["Labels"] == whose
    ours = {name: value for name, value in container["Config"]["Labels"].items() if name.startswith("sophon.")}
    run = ours.pop("sophon.run")
    assert ours == whose
    assert container["Name"] == f"/sophon-{lab.installation.id}-{run}"


async def test_each_run_has_a_token_of_its_own_that_is_in_no_label_address_log_or_entry(lab: Lab) -> None:
    notebook = f"secret-{secrets.token_hex(3)}"
    ada, where = lab.ada.token, lab.installation
    await ada.do("POST", "/api/notebooks", {"slug": notebook, "project": lab.project, "title": "Secret"})
    tokens: list[str] = []
    for _ in range(2):
        page = await ada.start(notebook)
        (container,) = where.containers(notebook)
        tokens.append(token_of(container))
        told = [
            json.dumps([page, container["Config"]["Labels"], container["Name"], container["Args"]]),
            logged(container["Id"]),
            (await ada.ask("GET", "/lab", at=notebook)).expect(200).text,
            json.dumps(await lab.administrator.get(f"/api/audit/entries?tag=notebook:{notebook}")),
        ]
        assert [text for text in told if tokens[-1] in text] == []
        await ada.do("POST", f"/api/notebooks/{notebook}/stop")
        await ada.until(notebook, "stopped")
    assert len(set(tokens)) == 2
    assert min(map(len, tokens)) >= 32
    assert files_with(where, tokens) == []
    await ada.do("DELETE", f"/api/notebooks/{notebook}")


def logged(container: str) -> str:
    done = subprocess.run(("docker", "logs", container), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    assert done.stdout
    return done.stdout.decode()


def files_with(where: Installation, tokens: list[str]) -> list[str]:
    """Name the files of an installation in which a token stands: what it said, its database, its proxy's state."""
    return [
        str(path)
        for path in where.files()
        if path.is_file() and any(token.encode() in path.read_bytes() for token in tokens)
    ]
