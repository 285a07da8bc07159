"""k-means in segments of consecutive tokens, as the methods that cluster keys use it."""

import torch

SEGMENT_TOKENS = 8192
ITERATIONS = 10
BLOCK_POINTS, BLOCK_CENTROIDS = 512, 4096  # scores of one block stay in the cache


def _bounds(points, parts):
    edges = torch.linspace(0, points, parts + 1, dtype=torch.float64).round().long().tolist()
    return list(zip(edges, edges[1:]))


def _strided(points, clusters):
    """Evenly strided points, from the middle of each stride."""
    stride = len(points) / clusters
    return points[((torch.arange(clusters) + 0.5) * stride).long()].clone()


def _means(points, weights, assignment, previous):
    """Weighted means of the clusters; a cluster that ran empty keeps its centroid."""
    sums = torch.zeros_like(previous).index_add_(0, assignment, points * weights[:, None])
    mass = torch.zeros(len(previous)).index_add_(0, assignment, weights)[:, None]
    return torch.where(mass > 0, sums / mass.clamp_min(1e-30), previous)


def _best(points, centroids, bias=None):
    """Index of the centroid with the largest inner product plus bias, for each point."""
    answer = torch.empty(len(points), dtype=torch.long)
    for begin in range(0, len(points), BLOCK_POINTS):
        block = points[begin:begin + BLOCK_POINTS]
        best = torch.full((len(block),), -torch.inf)
        where = answer[begin:begin + BLOCK_POINTS]
        for first in range(0, len(centroids), BLOCK_CENTROIDS):
            scores = block @ centroids[first:first + BLOCK_CENTROIDS].T
            if bias is not None:
                scores += bias[first:first + BLOCK_CENTROIDS]
            score, index = scores.max(dim=1)
            where[score > best] = index[score > best] + first
            best = torch.maximum(best, score)
    return answer


def _segments(points, points_per_cluster):
    for begin, end in _bounds(len(points), max(1, round(len(points) / SEGMENT_TOKENS))):
        yield slice(begin, end), max(1, round((end - begin) / points_per_cluster))


def spherical_assignment(keys, keys_per_cluster):
    """RetroInfer's segmented clustering (arXiv 2505.02922, section 4.2): (assignment, clusters).

    Keys lose their mean. Nine iterations inside segments assign by inner product with normalised
    centroids; the tenth assigns every key over the centroids of all segments.
    """
    keys = keys - keys.mean(dim=0)
    ones = torch.ones(len(keys))
    all_centroids = []
    for rows, clusters in _segments(keys, keys_per_cluster):
        segment = keys[rows]
        centroids = _strided(segment, clusters)
        for _ in range(ITERATIONS - 1):
            assignment = _best(segment, centroids)
            centroids = _means(segment, ones[rows], assignment, centroids)
            centroids = torch.nn.functional.normalize(centroids, dim=1)
        all_centroids.append(centroids)
    centroids = torch.cat(all_centroids)
    return _best(keys, centroids), len(centroids)


def euclidean_assignment(points, weights, points_per_cluster):
    """Lloyd's k-means in segments, as Multipole Attention's (arXiv 2506.13059, section 3.3)."""
    assignments, clusters_before = [], 0
    for rows, clusters in _segments(points, points_per_cluster):
        segment = points[rows]
        centroids = _strided(segment, clusters)
        for _ in range(ITERATIONS):
            assignment = _best(segment, centroids, -0.5 * centroids.square().sum(dim=1))
            centroids = _means(segment, weights[rows], assignment, centroids)
        assignment = _best(segment, centroids, -0.5 * centroids.square().sum(dim=1))
        assignments.append(assignment + clusters_before)
        clusters_before += clusters
    return torch.cat(assignments), clusters_before
