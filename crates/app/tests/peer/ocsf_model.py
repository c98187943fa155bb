"""Reads OCSF compliance findings, one a line, with py-ocsf-models, and refuses what those models do not have."""

import json
import sys

from pydantic import BaseModel
from py_ocsf_models.events.findings.compliance_finding import ComplianceFinding

# In OCSF's own dictionary for `compliance`, and left out by these models.
LACKING = {"compliance.status", "compliance.status_detail"}


def unknown(document, model, path):
    for name, value in document.items():
        place = f"{path}{name}"
        if name not in type(model).model_fields:
            if place not in LACKING:
                yield place
            continue
        read = getattr(model, name)
        if isinstance(read, BaseModel):
            yield from unknown(value, read, place + ".")
        elif isinstance(read, list):
            for one, other in zip(value, read):
                if isinstance(other, BaseModel):
                    yield from unknown(one, other, place + "[].")


count = 0
with open(sys.argv[1], encoding="utf-8") as file:
    for line in file:
        document = json.loads(line)
        finding = ComplianceFinding.model_validate(document)
        assert finding.type_uid == finding.class_uid * 100 + finding.activity_id, finding.type_uid
        extra = list(unknown(document, finding, ""))
        assert not extra, extra
        count += 1
print(json.dumps({"events": count}))
