"""The reward written the slow way, in plain Python: one pair of boxes at a time, every assignment tried."""

from itertools import permutations

Box = tuple[float, float, float, float]


def area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def intersection(a: Box, b: Box) -> float:
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def iou(a: Box, b: Box) -> float:
    union = area(a) + area(b) - intersection(a, b)
    return intersection(a, b) / union if union > 0 else 0.0


def giou(a: Box, b: Box) -> float:
    hull = area((min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])))
    union = area(a) + area(b) - intersection(a, b)
    return iou(a, b) - ((hull - union) / hull if hull > 0 else 0.0)


def cost(predicted: Box, true: Box, l1_weight: float, giou_weight: float) -> float:
    l1 = sum(abs(p - t) for p, t in zip(predicted, true, strict=True)) / 4
    return l1_weight * l1 + giou_weight * (1 - giou(predicted, true))


def assignments(num_predicted: int, num_true: int) -> list[list[tuple[int, int]]]:
    """Every way to pair all of the fewer with some of the more, as (predicted, true) indices."""
    if num_predicted <= num_true:
        return [list(enumerate(chosen)) for chosen in permutations(range(num_true), num_predicted)]
    return [[(p, t) for t, p in enumerate(chosen)] for chosen in permutations(range(num_predicted), num_true)]


def accuracies(predicted: list[Box], true: list[Box], config) -> list[tuple[float, float]]:
    """(F1, IoU) of every assignment of least cost: several where assignments tie."""
    if not predicted and not true:
        return [(1.0, 1.0)]
    if not predicted or not true:
        return [(0.0, 0.0)]
    priced = []
    for pairs in assignments(len(predicted), len(true)):
        total = sum(cost(predicted[p], true[t], config.l1_weight, config.giou_weight) for p, t in pairs)
        priced.append((total, [iou(predicted[p], true[t]) for p, t in pairs]))
    least = min(total for total, _ in priced)
    results = []
    for total, ious in priced:
        if total > least + 1e-5:
            continue
        hits = sum(value >= config.iou_threshold - 1e-6 for value in ious)
        precision, recall = hits / len(predicted), hits / len(true)
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        denominator = len(ious) if config.iou_average == "matched" else max(len(predicted), len(true))
        results.append((f1, sum(ious) / denominator))
    return results
