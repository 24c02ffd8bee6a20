"""The charts' library in the page is the bundle that was built, with its licences."""

import hashlib
import json
from pathlib import Path

VENDOR = Path(__file__).resolve().parents[1] / "stages/lib/page/vendor/echarts"


def test_the_bundle_is_the_one_that_was_built_of_the_named_version() -> None:
    expected, name = (VENDOR / "echarts.min.js.sha256").read_text().split()
    bundle = (VENDOR / name).read_bytes()
    version = json.loads((VENDOR / "package.json").read_text())["dependencies"]["echarts"]
    assert hashlib.sha256(bundle).hexdigest() == expected
    assert f"Apache ECharts {version}".encode() in bundle[:200]
    assert b"</script" not in bundle.lower()
    assert b"new Function" not in bundle  # the page's policy forbids it


def test_the_licences_of_what_is_bundled_lie_beside_it() -> None:
    assert "Apache License" in (VENDOR / "LICENSE").read_text()
    assert "BSD 3-Clause" in (VENDOR / "LICENSE-zrender").read_text()
    assert "Apache ECharts" in (VENDOR / "NOTICE").read_text()
