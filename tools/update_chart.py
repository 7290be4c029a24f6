"""Brings a version of Chart.js from the npm registry into the package: tools/update_chart.py 4.6.1

The file is taken as published, but for the comment that names a source map, which is not shipped.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parents[1] / "src" / "lamina" / "report" / "site" / "vendor"


def main(version: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = ["npm", "pack", "--silent", "--pack-destination", folder, f"chart.js@{version}"]
        subprocess.run(run, check=True)
        archive = next(Path(folder).glob("*.tgz"))
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        with tarfile.open(archive) as tar:
            script = _text(tar, "dist/chart.umd.min.js")
            licence = _text(tar, "LICENSE.md")
    script = "".join(line for line in script.splitlines(keepends=True) if not line.startswith("//# sourceMappingURL"))
    VENDOR.mkdir(exist_ok=True)
    (VENDOR / "chart.umd.min.js").write_text(script, encoding="utf-8")
    (VENDOR / "chart.js-LICENSE.txt").write_text(licence, encoding="utf-8")
    said = {"name": "chart.js", "version": version, "from": "npm", "archive_sha512": digest, "licence": "MIT"}
    (VENDOR / "chart.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    print(f"chart.js {version}, sha512-{digest}")


def _text(tar: tarfile.TarFile, name: str) -> str:
    member = tar.extractfile(f"package/{name}")
    assert member, f"the archive has no {name}"
    return member.read().decode("utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
