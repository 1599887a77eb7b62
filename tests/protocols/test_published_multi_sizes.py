"""Sizes of the published multi-label splits, from the label lists of VOC2007 and, where they are given, COCO 2014."""

import csv
import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from imbcil.protocols.arrange import Arrangement, DatasetLabels
from imbcil.protocols.arrange_multi import arrange_multi
from imbcil.protocols.datasets.coco import read_annotations
from imbcil.protocols.datasets.faults import Faults
from imbcil.protocols.datasets.multi_list import codes_of
from imbcil.protocols.datasets.source import DIFFICULT, POSITIVE
from imbcil.protocols.datasets.voc import CLASSES
from imbcil.protocols.settings import DataSettings, ProtocolSettings
from imbcil.protocols.splits import parse_split

# split, training images a phase, their sum, test images with a seen class, positives of own classes a training image
VOC = """\
B0-C4,985|1409|1091|2322|805,6612,892|2235|3186|4497|4952,1.007|1.050|1.106|1.199|1.046
B10-C2,2868|620|532|2180|325|517,7042,2729|3186|3634|4497|4652|4952,1.066|1.002|1.000|1.033|1.000|1.000
B4-C2,985|430|1048|586|620|532|2180|325|517,7223,892|1268|2235|2729|3186|3634|4497|4652|4952,1.007|1.000|1.002|1.000|1.002|1.000|1.033|1.000|1.000
B5-C3,1227|1171|687|943|2264|709,7001,1101|2235|2809|3634|4573|4952,1.007|1.056|1.144|1.011|1.038|1.052
B0-C2,481|507|430|1048|586|620|532|2180|325|517,7226,443|892|1268|2235|2729|3186|3634|4497|4652|4952,1.000|1.008|1.000|1.002|1.000|1.002|1.000|1.033|1.000|1.000
B0-C5,1227|1727|2556|1006,6516,1101|2729|4386|4952,1.007|1.055|1.237|1.081
B10-C5,2868|2556|1006,6430,2729|4386|4952,1.066|1.237|1.081
B0-C10,2868|3252,6120,2729|4952,1.066|1.306
B15-C1,4473|245|96|229|261|256,5560,4386|4497|4573|4652|4866|4952,1.390|1.0|1.0|1.0|1.0|1.0"""
COCO = """\
B0-C10,18599|28071|27930|17218|51104|18851|16845|21750,200368,8707|19635|26227|29601|36442|37625|38132|40137,1.182|1.249|1.497|1.041|1.192|1.091|1.100|1.115
B40-C10,60611|51104|18851|16845|21750,169161,29601|36442|37625|38132|40137,1.927|1.192|1.091|1.100|1.115
B20-C10,41037|27930|17218|51104|18851|16845|21750,194735,19635|26227|29601|36442|37625|38132|40137,1.390|1.497|1.041|1.192|1.091|1.100|1.115
B0-C5,10237|10664|16281|13956|17667|16228|8542|9156|10450|48470|10084|9734|9456|8912|11409|10889,222135,4466|8707|15184|19635|23931|26227|28226|29601|30723|36442|36885|37625|37943|38132|39406|40137,1.051|1.052|1.171|1.147|1.212|1.256|1.003|1.021|1.027|1.035|1.069|1.006|1.004|1.014|1.113|1.062
B20-C4,41037|16510|15040|6769|5972|9038|8021|6847|48194|6066|9113|7852|7819|5691|11697|8110,213776,19635|23616|25423|27056|28261|29601|30306|30969|36755|36943|37625|37861|38115|38554|39421|40137,1.390|1.105|1.294|1.008|1.000|1.020|1.033|1.015|1.057|1.017|1.000|1.001|1.004|1.025|1.100|1.033
B40-C5,60611|10450|48470|10084|9734|9456|8912|11409|10889,180015,29601|30723|36442|36885|37625|37943|38132|39406|40137,1.927|1.027|1.035|1.069|1.006|1.004|1.014|1.113|1.062
B0-C20,41037|38880|57451|36425,173793,19635|29601|37625|40137,1.390|1.536|1.418|1.175"""
VOC_POSITIVES = (
    "238/204, 243/239, 330/282, 181/172, 244/212, 186/174, 713/721, 337/322, 445/417, 141/127, 200/190, 421/418, "
    "287/274, 245/222, 2008/2007, 245/224, 96/97, 229/223, 261/259, 256/229"
)


@lru_cache(maxsize=2)
def voc_codes(folder: Path, name: str) -> np.ndarray:
    """Codes [N, 20] from the official class lists: 1 present, 0 only difficult objects, -1 absent."""
    meaning = {"1": POSITIVE, "0": DIFFICULT, "-1": 0}
    columns = []
    for label in CLASSES:
        lines = (folder / f"{label}_{name}.txt").read_text().splitlines()
        columns.append([meaning[line.split()[1]] for line in lines])
    return np.array(columns, np.uint8).T


@pytest.fixture
def voc(shared_data: Path) -> DatasetLabels:
    """VOC2007 trainval and test."""
    folder = shared_data / "voc_annotations" / "VOC2007_ImageSets" / "Main"
    train, test = voc_codes(folder, "trainval"), voc_codes(folder, "test")
    return DatasetLabels(np.full(len(train), -1), np.full(len(test), -1), CLASSES, train, test)


def arranged(labels: DatasetLabels, split: str, **data: str) -> Arrangement:
    base, step = parse_split(split)
    settings = ProtocolSettings(
        protocol="mlcil", dataset="x", base=base, step=step, order="ordered", data=DataSettings(**data)
    )
    return arrange_multi(settings, None, labels)


def sizes_of(made: Arrangement) -> list[str]:
    """As a line of the tables above, without the split's name."""
    assert made.targets is not None
    train = [len(phase.train) for phase in made.phases]
    own = [
        (made.targets.train[phase.train][:, list(phase.classes)] == 1).sum() / len(phase.train)
        for phase in made.phases
    ]
    seen = [
        len(np.unique(np.concatenate([phase.test for phase in made.phases[: last + 1]])))
        for last in range(len(train))
    ]
    return [
        "|".join(map(str, train)),
        str(sum(train)),
        "|".join(map(str, seen)),
        "|".join(f"{x:.3f}" for x in own),
    ]


def expected(line: list[str]) -> list[str]:
    return [*line[1:4], "|".join(f"{float(value):.3f}" for value in line[4].split("|"))]


@pytest.mark.parametrize("line", list(csv.reader(io.StringIO(VOC))), ids=lambda line: line[0])
def test_splits_of_voc2007_have_the_published_sizes(line: list[str], voc: DatasetLabels) -> None:
    assert sizes_of(arranged(voc, line[0])) == expected(line)


def test_voc2007_has_the_published_positives_of_each_class(voc: DatasetLabels) -> None:
    made = arranged(voc, "B0-C4")
    assert made.targets is not None
    counts = zip((made.targets.train == 1).sum(axis=0), (made.targets.test == 1).sum(axis=0), strict=True)
    assert ", ".join(f"{train}/{test}" for train, test in counts) == VOC_POSITIVES
    assert ((made.targets.train == 1).sum(), (made.targets.test == 1).sum()) == (7306, 7013)
    assert (made.targets.train == 1).any(axis=1).all()


def test_difficult_pairs_of_voc2007_are_607_and_619_under_each_switch(voc: DatasetLabels) -> None:
    for switch, value in (("negative", 0), ("ignore", 255), ("positive", 1)):
        targets = arranged(voc, "B0-C4", difficult=switch).targets
        assert targets is not None and voc.train_codes is not None and voc.test_codes is not None
        assert (targets.train[voc.train_codes == DIFFICULT] == value).sum() == 607
        assert (targets.test[voc.test_codes == DIFFICULT] == value).sum() == 619


@pytest.fixture(scope="session")
def coco(shared_data: Path) -> DatasetLabels:
    """COCO 2014 from its annotations, where they are given."""
    folder = shared_data / "coco_annotations"
    parts = []
    for split in ("train", "val"):
        path = folder / f"instances_{split}2014.json"
        if not path.is_file():
            pytest.skip(f"{path} is not here")
        read = read_annotations(path, Faults())
        number = {name: label for label, name in enumerate(read.names)}
        labelled = [{number[name]: code for name, code in codes.items()} for codes in read.codes if codes]
        parts.append(codes_of(labelled, len(read.names)))
    train, test = parts
    return DatasetLabels(np.full(len(train), -1), np.full(len(test), -1), read.names, train, test)


@pytest.mark.parametrize("line", list(csv.reader(io.StringIO(COCO))), ids=lambda line: line[0])
def test_splits_of_coco2014_have_the_published_sizes(line: list[str], coco: DatasetLabels) -> None:
    assert sizes_of(arranged(coco, line[0])) == expected(line)
