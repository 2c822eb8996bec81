"""What must be said of external data before a figure on them is believed."""

from collections.abc import Sequence

from cxrnet.audit.conflicts import conflict_statement
from cxrnet.audit.statement import patients_text
from cxrnet.data.manifest import digest
from cxrnet.data.overlap import KnownImages
from cxrnet.evaluation.prior import Mix, threshold_sentence
from cxrnet.external_sets import ExternalSet
from cxrnet.methods import faults_of
from cxrnet.origin import Origin


def statement(origin: Origin, known: KnownImages | None, sets: Sequence[ExternalSet]) -> list[str]:
    """What a reader must know before the numbers, a sentence each.

    Args:
        origin: of the bundle.
        known: the images that copies were looked for of; ``None`` where they aren't known.
        sets: the data sets, copies taken out.
    """
    sentences = []
    if known is None:
        sentences.append(
            "the images that the bundle was made with are not known (no manifest.parquet of its run beside it): the "
            "data can't be checked for copies of them, and the figures may be flattered"
        )
    elif known.lost:
        sentences.append(
            f"{known.lost} of {len(known.manifest)} images that the bundle was made with can't be read any more: of "
            "these only copies with the same bytes are found"
        )
    if origin.seen:
        tested = origin.seen + (0 if origin.test is None else len(origin.test))
        sentences.append(
            f"{origin.seen} of {tested} internal test images were seen before (their patient, or a copy, is in train "
            "or val); the internal figures are without them"
        )
    if origin.test is None:
        missing = "unseen test images were left" if origin.seen else "internal test result lies beside the bundle"
        sentences.append(f"no {missing}, so there is no fall to state")
    return sentences + [sentence for each in sets for sentence in _about(origin, each)]


def mix_statement(origin: Origin, mix: Mix) -> list[str]:
    """What must be said of the mix of classes that the probabilities are of, a sentence each."""
    if mix.shares is None:
        return [
            f"the probabilities are {mix}: decision curves take the mix of each data set's images for it, and with "
            "class weights or a balanced sampler in training the probabilities are of none that there is"
        ]
    if mix.asked is None:
        return []
    sentences = [
        f"the probabilities are {mix}, those of the internal result and of the baselines too; the images are as "
        "frequent as they are, so log loss, Brier score and ECE mix the two"
    ]
    kept = threshold_sentence(mix, origin.bundle.operating_points, origin.bundle.refer_below is not None)
    return [*sentences, kept] if kept else sentences


def _about(origin: Origin, each: ExternalSet) -> list[str]:
    sentences = [f"{each.name}: {note}" for note in each.notes]
    if copies := sum((each.copies or {}).values()):
        sentences.append(
            f"{each.name}: {copies} images are copies of images that the bundle was made with or tested on; they were "
            "taken out. Copies that were cut, turned or mirrored escape the search"
        )
    if each.same_patients:
        sentences.append(
            f"{each.name}: {each.same_patients} images are of patients of whom the bundle's run has other images"
        )
    synthetic = (each.manifest["source"] == "phantom").any()  # whose patients are nobody
    if each.same_numbers and not synthetic:
        sentences.append(
            f"{each.name}: {each.same_numbers} images bear a source and a patient number that images of the bundle's "
            "run bear too; whether these are the same patients is not known"
        )
    sentences += [f"{each.name}: {text}" for text in conflict_statement(each.within, each.manifest)]
    for other, count in each.shared.items():
        sentences.append(f"{each.name}: {count} images are in {other} too; the two results are not independent")
    if each.gap:
        return [*sentences, f"{each.name}: not evaluated, for {each.gap}"]
    if lacking := [name for name in origin.bundle.classes if name not in set(each.manifest["label"])]:
        sentences.append(
            f"{each.name}: no image is labelled {', '.join(lacking)}; figures that need one are n/a, and means are "
            "over the other classes alone"
        )
    if synthetic:
        sentences.append(f"{each.name}: the images are synthetic; the result says nothing about patients")
    return sentences


def data_facts(each: ExternalSet) -> dict[str, str]:
    """What was done to a data set, in the order of the steps."""
    facts = {"images": f"{each.listed} listed{', their published split ignored' if each.published else ''}"}
    if each.renamed:
        facts["read as"] = ", ".join(f"{label} as {target}" for label, target in each.renamed.items())
    if each.left_out:
        classes = ", ".join(f"{label} {count}" for label, count in each.left_out.items())
        facts["left out"] = f"{classes}: no class of the bundle"
    if each.unreadable:
        facts["unreadable"] = str(each.unreadable)
    facts["copies"] = _copies(each.copies)
    if each.gap:
        return facts | {"evaluated": f"nothing: {each.gap}"}
    counts = each.manifest["label"].value_counts().sort_index()
    facts["evaluated"] = f"{len(each.manifest)} images: {', '.join(f'{k} {n}' for k, n in counts.items())}"
    facts["patients"] = patients_text(each.manifest)
    return facts | {"digest": digest(each.manifest)}


def documented_faults(each: ExternalSet) -> dict[str, str]:
    """What is documented to be wrong with a data set; what was found is said by :func:`statement`."""
    return {"known faults": " ".join(faults_of(each.known_faults)) or "none are documented"}


def _copies(copies: dict[str, int] | None) -> str:
    if copies is None:
        return "not looked for: the images that the bundle was made with are not known"
    where = ", ".join(f"{count} of {split}" for split, count in copies.items())
    return f"{sum(copies.values())} taken out{f' ({where})' if where else ''}"
