"""The files by which Linux shows a Hailo device, in a directory of a test's own: a Raspberry Pi 5, say."""

from __future__ import annotations

import os
from pathlib import Path

from hailo_clip.ops.doctor_finding import Machine


class FakePi:
    """Begins without a device, driver or library; see `Machine` for who looks at it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("sys/bus/pci/devices", "sys/module", "dev", "proc", "lib/aarch64-linux-gnu"):
            (root / name).mkdir(parents=True)

    @property
    def machine(self) -> Machine:
        """Where `doctor` looks."""
        r = self.root
        return Machine(r / "sys", (r / "lib",), r / "dev", r / "proc", dict(os.environ))

    def card(
        self, address: str = "0001:01:00.0", kind: str = "0x45c4", speed: str = "8.0 GT/s PCIe"
    ) -> FakePi:
        """Put a Hailo device on the bus."""
        place = self.root / "sys/bus/pci/devices" / address
        place.mkdir()
        (place / "vendor").write_text("0x1e60\n")
        (place / "device").write_text(f"{kind}\n")
        (place / "current_link_speed").write_text(f"{speed}\n")
        return self

    def driver(self, version: str = "5.2.0", module: str = "hailo1x_pci") -> FakePi:
        """Load a driver."""
        place = self.root / "sys/module" / module
        place.mkdir()
        (place / "version").write_text(f"{version}\n")
        return self

    def node(self, name: str = "hailo0", mode: int = 0o666) -> FakePi:
        """Make a device node, which is a plain file here."""
        node = self.root / "dev" / name
        node.touch()
        node.chmod(mode)
        return self

    def libhailort(self, version: str = "5.2.0") -> FakePi:
        """Install the library."""
        (self.root / "lib/aarch64-linux-gnu" / f"libhailort.so.{version}").touch()
        return self

    def process(self, pid: int, name: str, *open_files: str, cmdline: str = "") -> FakePi:
        """Run a program that has device nodes open."""
        place = self.root / "proc" / str(pid)
        (place / "fd").mkdir(parents=True)
        (place / "comm").write_text(f"{name}\n")
        (place / "cmdline").write_text((cmdline or name).replace(" ", "\0"))
        for number, file in enumerate(open_files):
            (place / "fd" / str(number)).symlink_to(self.root / "dev" / file)
        return self

    def whole(self) -> FakePi:
        """A Hailo-10H in good order."""
        return self.card().driver().node().libhailort()
