# SPDX-License-Identifier: Apache-2.0
"""The policy for a secured graph names what the node really offers."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.messages.names import IMAGE
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.outputs import output_topics

ROOT = Path(__file__).resolve().parents[2]
POLICY = ET.parse(ROOT / "config" / "sros2" / "occupancy_nn.policy.xml").getroot()


def allowed(kind: str, verb: str) -> set[str]:
    (profile,) = POLICY.iter("profile")
    return {item.text for group in profile.findall(f"{kind}s[@{verb}='ALLOW']") for item in group}


def test_the_policy_is_for_the_node_by_its_own_name():
    (profile,) = POLICY.iter("profile")
    node = (ROOT / "occupancy_nn_ros" / "ros" / "node.py").read_text(encoding="utf-8")
    assert profile.attrib == {"ns": "/", "node": "occupancy_nn"}
    assert f'DEFAULT_NAME = "{profile.attrib["node"]}"' in node
    assert POLICY.attrib["version"] == "0.2.0"


def test_every_output_may_be_published_and_nothing_unknown():
    own = {name for name in allowed("topic", "publish") if name.startswith("~/")}
    outputs = {f"~/{topic.name}" for topic in output_topics(Config(), [SensorStream("front", "/front", IMAGE)])}
    assert own == outputs | {"~/status", "~/transition_event"}


def test_every_service_may_be_answered():
    services = (ROOT / "occupancy_nn_ros" / "ros" / "services.py").read_text(encoding="utf-8")
    offered = set(re.findall(r'^\s+"(\w+)": \("\w+/srv/', services, re.M))
    assert len(offered) >= 6
    assert {f"~/{name}" for name in offered} <= allowed("service", "reply")


@pytest.mark.parametrize("topic", ["/tf", "/tf_static"])
def test_transforms_may_be_heard(topic):
    assert topic.lstrip("/") in allowed("topic", "subscribe")
