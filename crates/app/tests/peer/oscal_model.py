"""Reads OSCAL assessment results with compliance-trestle, whose models are made from NIST's schema and refuse what is
not in it. Prints the version of OSCAL and how many results, observations, findings and resources there are."""

import json
import sys

from trestle.oscal import OSCAL_VERSION
from trestle.oscal.assessment_results import Model

with open(sys.argv[1], "rb") as file:
    read = Model.parse_raw(file.read()).assessment_results
assert read.metadata.oscal_version.__root__ == OSCAL_VERSION, read.metadata.oscal_version
many = lambda name: sum(len(getattr(result, name) or []) for result in read.results)
print(json.dumps({
    "version": OSCAL_VERSION,
    "results": len(read.results),
    "observations": many("observations"),
    "findings": many("findings"),
    "risks": many("risks"),
    "resources": len(read.back_matter.resources),
}))
