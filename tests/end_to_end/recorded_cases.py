"""Small runs of every method: overrides by name of the case.

Every setting that changes a number is written out, also where its value is the YAML's, so that a changed default
changes no case. This module imports nothing of the package, so that its list also serves to compare two checkouts.
"""

from __future__ import annotations

Overrides = tuple[str, ...]


def choice(group: str, name: str, **settings: object) -> Overrides:
    """Overrides that choose from a group and set keys of it, whether or not its YAML has them."""
    chosen = (f"{group}={name}",) if name else ()
    return (*chosen, *(f"++{group}.{key.replace('__', '.')}={_text(value)}" for key, value in settings.items()))


def _text(value: object) -> str:
    """A value as Hydra reads it."""
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def federation(rounds: int, local_epochs: int = 2, fraction: float = 1.0) -> Overrides:
    return choice("federation", "", rounds=rounds, local_epochs=local_epochs, fraction=fraction)


# Where clients are changes no number; two nodes and chunks of two reach what puts parts together.
_COMMON = (
    *("seed=0", "logger=none", "record.mixing_every=1", "record.client_models=false", "record.checkpoint_every=0"),
    *choice("runtime", "inline", nodes=2, chunk=2, device="cpu", threads=1, on_client_failure="stop"),
)


def adam(lr: float, weight_decay: float, decoupled: bool = False) -> Overrides:
    return choice("optimizer", "adam", lr=lr, weight_decay=weight_decay, decoupled=decoupled)


# Graphs ---------------------------------------------------------------------------------------------------------------


def sbm(features: int = 8) -> Overrides:
    return choice(
        *("dataset", "sbm"),
        **{"variant": "nonoverlapping", "communities": 4, "nodes_per_community": 25, "classes_per_community": 2},
        **{"overlap": 0.2, "p_class": 0.3, "p_community": 0.1, "p_out": 0.02, "features": features, "signal": 0.8},
        **{"graph_seed": 0, "train_fraction": 0.4, "largest_component": True, "row_normalize": False},
    )


_DISJOINT = choice("partition", "metis", clients=4, seed=1234)
_EIGHT = choice("partition", "metis", clients=8, seed=1234)
_OVERLAPPING = choice("partition", "overlap_rate", clients=5, seed=1234, rate=0.3)
_CLASSES = choice("task", "node_classification")
_LINKS = choice("task", "link_prediction", validation_fraction=0.1, test_fraction=0.2, dimensions=6, seed=1234)
_GCN = choice("model", "gcn", hidden=8, layers=2, dropout=0.5)
_SAGE = choice("model", "sage", hidden=8, layers=2, dropout=0.5)
_DECOUPLED = choice("model", "decoupled", hidden=8, layers=2, dropout=0.5, encoding=6)


def graph(
    *method: Overrides,
    data: Overrides | None = None,
    partition: Overrides = _DISJOINT,
    model: Overrides = _GCN,
    task: Overrides = _CLASSES,
    rounds: int = 3,
    fraction: float = 1.0,
) -> Overrides:
    parts = (*method, data or sbm(), partition, model, task, adam(0.03, 1e-6), federation(rounds, 2, fraction), _COMMON)
    return tuple(override for part in parts for override in part)


_EXAMPLES = {"weighting": "examples"}
_SERVER = {"server_lr": 0.01, "beta1": 0.9, "beta2": 0.99, "tau": 0.001}
_RANDOM_GRAPH = {"random_blocks": 3, "random_block_nodes": 8, "random_p_in": 0.4, "random_p_out": 0.1}
_AUTO_GRAPH = {"random_nodes": "auto", "random_probability": "auto"}


def fedpub(name: str = "fedpub", **settings: object) -> Overrides:
    """FED-PUB with masks that prune within a few rounds."""
    known = {
        **{"tau": "auto", "similarity": "functional", "community_threshold": None, "missing": "owners", "masks": True},
        **{
            "centred": False,
            "sparsity": None,
            "mask_l1": 1e-3,
            "mask_threshold": 0.93,
            "mask_lr": 1.0,
            "weight_decay": 0,
            "proximal": 1e-3,
        },
        **{"random_graph": "sbm", **_RANDOM_GRAPH, **_AUTO_GRAPH, "variant": "paper"},
    }
    return choice("method", name, **{**known, **settings})


def subpfed(**settings: object) -> Overrides:
    known = {
        **{"psi": 0.5, "kernel": "exp", "gamma": 1.0, "degree_weighted": True, "tau": 20.0, "similarity": "functional"},
        **{
            "community_threshold": None,
            "centred": False,
            "random_graph": "er",
            **_AUTO_GRAPH,
            "proximal": 1e-3,
            "weight_decay": 0,
        },
    }
    return choice("method", "subpfed", **{**known, **settings})


def gcfl(name: str = "gcfl", **settings: object) -> Overrides:
    """GCFL that halves clusters from the second round on."""
    known = {"epsilon1": 2.0, "epsilon2": 0.0, "relative": True, "first_split": 2, "min_cluster": 1}
    return choice("method", name, **{**known, **settings})


def fedgcn(**settings: object) -> Overrides:
    return choice("method", "fedgcn", **{"hops": 2, "masking": False, "fraction_bits": 24, **_EXAMPLES, **settings})


def fedgnn_subgraph(**settings: object) -> Overrides:
    known = {"threshold": 0.5, "max_neighbours": 2, "exchange_start": 1, "exchange_every": 2, **_EXAMPLES}
    return choice("method", "fedgnn_subgraph", **{**known, **settings})


def fedsage_plus(**settings: object) -> Overrides:
    known = {
        **{**_EXAMPLES, "hidden_share": 0.5, "generator_epochs": 4, "generator_lr": 0.05},
        **{"generator_weight_decay": 1e-3, "exchanges": 2, "cross_weight": 1.0, "generator__latent": 6},
        **{"generator__hidden": 4, "generator__most_neighbours": 3, "generator__noise": 1.0},
        **{"generator__count_weight": 1.0, "generator__feature_weight": 1.0, "generator__class_weight": 1.0},
    }
    return choice("method", "fedsage_plus", **{**known, **settings})


def fedsg(**settings: object) -> Overrides:
    known = {"tau_topology": 5.0, "tau_feature": 20.0, "classifier": "average", "weight_decay": 0, **_RANDOM_GRAPH}
    return choice("method", "fedsg", **{**known, **settings})


def averaging(name: str, **settings: object) -> Overrides:
    return choice("method", name, **{**_EXAMPLES, **settings})


_DIGITS = choice("dataset", "digits", neighbours=8, train_fraction=0.2, largest_component=True, row_normalize=False)
_NO_PRIVACY = choice("privacy", "none")
_GAUSSIAN = choice("privacy", "gaussian_l2", clip=1.0, noise_multiplier=0.05, delta=1e-5)

GRAPHS: dict[str, Overrides] = {
    "fedavg": graph(averaging("fedavg")),
    "fedavg uniform, half": graph(averaging("fedavg", weighting="uniform"), fraction=0.5),
    "fedavg digits, 3 layers": graph(
        averaging("fedavg"), data=_DIGITS, model=choice("model", "gcn", hidden=8, layers=3, dropout=0.5)
    ),
    "fedavg decoupled": graph(averaging("fedavg"), model=_DECOUPLED),
    "fedavg links": graph(averaging("fedavg"), task=_LINKS),
    "fedprox": graph(averaging("fedprox", proximal=0.05)),
    "fedper": graph(averaging("fedper", personal_layers=["classifier"])),
    "fedsage": graph(averaging("fedsage"), model=_SAGE),
    "local": graph(choice("method", "local")),
    "local half": graph(choice("method", "local"), fraction=0.5),
    "oracle": graph(choice("method", "oracle")),
    "fedavg_whole_graph": graph(averaging("fedavg_whole_graph")),
    "fedpub": graph(fedpub(), rounds=4),
    "fedpub share": graph(fedpub(sparsity=0.6, sparsity_reached=0.5, mask_l1=0, centred=True), rounds=4),
    "fedper_similar": graph(
        fedpub("fedper_similar", masks=False, tau=1, centred=True, mask_l1=0, personal_layers=["classifier"])
    ),
    "fedpub overlapping": graph(fedpub(), partition=_OVERLAPPING),
    "fedpub half": graph(fedpub(), partition=_OVERLAPPING, fraction=0.5, rounds=5),
    "fedpub wide": graph(fedpub(), data=sbm(700)),
    "fedpub wide, half": graph(fedpub(), data=sbm(700), fraction=0.5),
    "fedpub missing=zero": graph(fedpub(missing="zero", mask_lr=2.0)),
    "fedpub no masks": graph(fedpub(masks=False, weight_decay=1e-4)),
    "fedpub label": graph(fedpub(similarity="label", tau=4)),
    "fedpub parameter": graph(fedpub(similarity="parameter")),
    "fedpub gradient": graph(fedpub(similarity="gradient"), rounds=4),
    "fedpub none": graph(fedpub(similarity="none")),
    "fedpub community": graph(fedpub(community_threshold=0.5)),
    "fedpub er": graph(fedpub(random_graph="er"), rounds=2),
    "fedpub er given": graph(fedpub(random_graph="er", random_nodes=20, random_probability=0.2), rounds=2),
    "fedpub one": graph(fedpub(random_graph="one"), rounds=2),
    "fedpub feature": graph(fedpub(random_graph="feature"), rounds=2),
    "fedpub personal classifier": graph(fedpub(personal_layers=["classifier"])),
    "fedpub links": graph(fedpub(), task=_LINKS),
    "fedpub_released": graph(fedpub("fedpub_released", weight_decay=None, mask_threshold=0.97, variant="released")),
    "subpfed": graph(subpfed(), partition=_OVERLAPPING),
    "subpfed centred": graph(subpfed(centred=True, tau=5), partition=_OVERLAPPING),
    "subpfed half": graph(subpfed(), partition=_OVERLAPPING, fraction=0.5, rounds=5),
    "subpfed inverse": graph(subpfed(kernel="inverse", gamma=2.0, psi=0.7), partition=_OVERLAPPING),
    "subpfed literal": graph(subpfed(kernel="literal", degree_weighted=False, psi=1.0), partition=_OVERLAPPING),
    "subpfed literal, half functional": graph(subpfed(kernel="literal"), partition=_OVERLAPPING),
    "subpfed parameter": graph(subpfed(similarity="parameter", psi=0.3, tau=5.0), partition=_OVERLAPPING),
    "scaffold": graph(choice("method", "scaffold", weighting="uniform", server_lr=1.0)),
    "scaffold by examples, half": graph(
        choice("method", "scaffold", weighting="examples", server_lr=0.5), partition=_EIGHT, fraction=0.5, rounds=5
    ),
    "fedopt": graph(choice("method", "fedopt", **_EXAMPLES, **_SERVER, server_optimizer="adam")),
    "fedopt yogi, half": graph(
        choice("method", "fedopt", **_EXAMPLES, **_SERVER, server_optimizer="yogi"),
        partition=_EIGHT,
        fraction=0.5,
        rounds=5,
    ),
    "fedgta": graph(choice("method", "fedgta", steps=3, alpha=0.5, orders=2, threshold=0.5)),
    "fedgta half": graph(
        choice("method", "fedgta", steps=2, alpha=0.3, orders=3, threshold=0.999),
        partition=_EIGHT,
        fraction=0.5,
        rounds=5,
    ),
    "pfedgraph": graph(choice("method", "pfedgraph", prior=0.8, cosine=0.1)),
    "pfedgraph half": graph(
        choice("method", "pfedgraph", prior=0.2, cosine=0.0), partition=_EIGHT, fraction=0.5, rounds=5
    ),
    "gcfl": graph(gcfl(), rounds=4),
    "gcfl half": graph(gcfl(), partition=_EIGHT, fraction=0.5, rounds=6),
    "gcfl absolute": graph(gcfl(relative=False, epsilon1=0.8, epsilon2=0.1, min_cluster=1), rounds=4),
    "gcfl_plus": graph(gcfl("gcfl_plus", window=2, standardize=True), rounds=5),
    "gcfl_plus three quarters": graph(
        gcfl("gcfl_plus", window=2, standardize=False), partition=_EIGHT, fraction=0.75, rounds=9
    ),
    "fedsg": graph(fedsg(), model=_DECOUPLED),
    "fedsg topology, half": graph(fedsg(classifier="topology"), model=_DECOUPLED, fraction=0.5),
    "fedgcn": graph(fedgcn()),
    "fedgcn masking": graph(fedgcn(masking=True)),
    "fedgcn hops 1": graph(fedgcn(hops=1)),
    "fedgcn hops 1, masking": graph(fedgcn(hops=1, masking=True)),
    "fedgcn hops 0": graph(fedgcn(hops=0)),
    "fedgcn overlapping": graph(fedgcn(), partition=_OVERLAPPING),
    "fedgnn_subgraph": graph(fedgnn_subgraph(), _NO_PRIVACY, rounds=5),
    "fedgnn_subgraph overlapping": graph(
        fedgnn_subgraph(exchange_start=2, exchange_every=0), _NO_PRIVACY, partition=_OVERLAPPING
    ),
    "fedgnn_subgraph gaussian": graph(fedgnn_subgraph(threshold=0.3), _GAUSSIAN),
    "fedsage_plus": graph(fedsage_plus(), model=_SAGE),
    "fedsage_plus gcn": graph(fedsage_plus(exchanges=1, cross_weight=0.5), fraction=0.5),
    "fedsage_plus no exchange": graph(fedsage_plus(exchanges=0), model=_SAGE),
}


# Ratings --------------------------------------------------------------------------------------------------------------

_DATA = choice(
    *("dataset", "synthetic_ratings"),
    **{"num_users": 12, "num_items": 30, "ratings_per_user": 8.0, "rank": 3, "signal": 1.0, "user_bias": 0.3},
    **{"item_bias": 0.3, "noise": 0.3, "popularity_skew": 0.6, "activity_skew": 0.5, "seed": 0},
    **{"test_fraction": 0.2, "validation_fraction": 0.2, "center": "auto", "spread": "auto", "scale": None},
)
_USERS = choice("partition", "users", seed=1234)
_RATING = (*choice("task", "rating_prediction"), "dataset.split=random")
_RANKING = (
    *choice("task", "ranking", choose_by="hr", cutoffs=[3], negatives=10, seed=1234),
    *("task.split=leave_one_out", "dataset.split=leave_one_out"),
)
_BY_NDCG = (*_RANKING, "task.choose_by=ndcg", "task.cutoffs=[5,3]")


def recommender(gnn: str, neighbours: int = 0, shrinkage: float = 0) -> Overrides:
    penalties = {"embedding_penalty": 0.02, "hidden_penalty": 0.03, "bias_penalty": 0.005, "shrinkage": shrinkage}
    if gnn == "none":
        return choice("model", "factorisation", gnn="none", dim=4, **{**penalties, "hidden_penalty": 0})
    return choice("model", "recommender", gnn=gnn, dim=4, neighbours=neighbours, **penalties)


def lightgcn(layers: int = 1, neighbours: int = 0) -> Overrides:
    known = {"attributes": False, "negatives": 2, "embedding_penalty": 0.001, "neighbours": neighbours}
    return choice("model", "lightgcn", dim=4, layers=layers, **known)


def ratings(
    *method: Overrides,
    task: Overrides = _RATING,
    model: Overrides | None = None,
    privacy: Overrides = _NO_PRIVACY,
    rounds: int = 5,
    fraction: float = 1.0,
) -> Overrides:
    chosen = model or (recommender("gat") if task is _RATING else lightgcn())
    parts = (*method, _DATA, _USERS, task, chosen, privacy, adam(0.05, 1e-4), federation(rounds, 2, fraction), _COMMON)
    return tuple(override for part in parts for override in part)


_LINF = choice("privacy", "laplace_linf", clip=0.1, noise=0.05, epsilon=None, delta=1e-5)
_L1 = choice("privacy", "laplace_l1", clip=1.0, epsilon=50.0, delta=1e-5)
_L2 = choice("privacy", "gaussian_l2", clip=1.0, noise_multiplier=0.02, delta=1e-5)

_SERVER = {
    **{"users_per_round": 6, "server_lr_final": 0.2, "row_average": "uploads"},
    **{"iterate_average": 0, "evaluate_every": 2, "loss": "sum"},
}
_HIDING = {
    **{"pseudo_items": 0, "pseudo_refresh": False, "pseudo_gradients": "fresh", "pseudo_norms": "like_real"},
    **{"max_neighbours": 0, "expansion_start": 1, "expansion_every": 2, "embedding_noise": 0, "audit_users": 0},
}
_MATCHED = {
    **{"pseudo_items": 5, "max_neighbours": 3, "expansion_every": 2, "embedding_noise": 0.05, "audit_users": 4},
}
_LEARNT = {"biases": "learnt", "bias_shrinkage": 5}
_SUMMED = {"biases": "summed", "bias_shrinkage": 4}
_TRAINING = {
    **{"user_steps": 3, "local_lr": 0.2, "user_lr": 0.02, "user_weight_decay": 0.01},
    **{"server_optimizer": "sgd", "server_lr": 1.0},
}


def fedgnn(**settings: object) -> Overrides:
    known = {
        **{**_SERVER, **_HIDING, **_LEARNT, "user_steps": 3, "user_lr": 0.03, "user_weight_decay": 0.1},
        **{"server_optimizer": "adam", "server_lr": 0.03, "network_lr": 0.02, "network_weight_decay": 0.003},
        **{"table_weight_decay": 0.01, "download": "auto", "train_neighbours": False},
    }
    return choice("method", "fedgnn", **{**known, **settings})


def local_models(**settings: object) -> Overrides:
    """FedAvg on ratings."""
    return choice("method", "fedavg", **{**_SERVER, **_HIDING, **_TRAINING, **settings})


def perfedrec(**settings: object) -> Overrides:
    known = {
        **{**_SERVER, **_HIDING, **_TRAINING, "clusters": 3, "cluster_start": 2, "cluster_every": 2},
        **{"cluster_pull": 0.1, "selection": "representative", "representative_share": 0.5, "agreeing": 1.0},
        **{"cluster_noise": 0, "own_lr": 0.05, "combination": "scores", "weights": "equal"},
    }
    return choice("method", "perfedrec", **{**known, **settings})


def fcf(**settings: object) -> Overrides:
    known = {**_LEARNT, "server_optimizer": "adam", "server_lr": 0.03}
    return choice("method", "fcf", **{**_SERVER, **known, **settings})


def fedmf(**settings: object) -> Overrides:
    known = {
        **{**_SERVER, **_LEARNT, "row_average": "participants", "user_steps": 2, "user_lr": 0.05, "masks": True},
        **{"fraction_bits": 24, "mask_degree": 2, "server_optimizer": "adam", "server_lr": 0.03},
    }
    return choice("method", "fedmf", **{**known, **settings})


def central(name: str, **settings: object) -> Overrides:
    return choice("method", name, batch_users=5, **{"iterate_average": 0.5, **settings})


_PLAIN = recommender("none")

RATINGS: dict[str, Overrides] = {
    "bias_row": ratings(choice("method", "bias_row", shrinkage=5), rounds=1),
    "popularity": ratings(choice("method", "popularity"), task=_RANKING, rounds=1),
    "central": ratings(choice("method", "central", batch_ratings=16), task=_RANKING, model=lightgcn(2), rounds=3),
    "central_gnn": ratings(central("central_gnn", network_weight_decay=0.003), rounds=3),
    "central_gnn last": ratings(
        central("central_gnn", network_weight_decay=0.003, iterate_average=0), model=recommender("ggnn"), rounds=3
    ),
    "central_mf": ratings(central("central_mf"), model=_PLAIN, rounds=3),
    "fcf": ratings(fcf(), model=_PLAIN),
    "fcf participants": ratings(
        fcf(row_average="participants", loss="mean", server_optimizer="sgd", server_lr=0.5), model=_PLAIN
    ),
    "fcf summed biases": ratings(fcf(**_SUMMED), model=recommender("none", shrinkage=20)),
    "fedmf": ratings(fedmf(), model=_PLAIN),
    "fedmf summed biases": ratings(fedmf(**_SUMMED), model=recommender("none", shrinkage=20)),
    "fedmf no masks": ratings(fedmf(masks=False), model=_PLAIN),
    "fedmf uploads": ratings(fedmf(masks=False, row_average="uploads", user_lr=None), model=_PLAIN),
    "fedgnn": ratings(fedgnn()),
    "fedgnn summed biases": ratings(fedgnn(pseudo_items=5, **_SUMMED), model=recommender("gat", shrinkage=20)),
    "fedgnn gcn": ratings(fedgnn(pseudo_items=5, loss="mean"), model=recommender("gcn")),
    "fedgnn ggnn, averaged": ratings(fedgnn(iterate_average=0.7, download="table"), model=recommender("ggnn")),
    "fedgnn half": ratings(fedgnn(users_per_round=None, pseudo_items=3), fraction=0.5),
    "fedgnn matched, noised": ratings(fedgnn(**_MATCHED), model=recommender("gat", 3), privacy=_LINF),
    "fedgnn matched, trained": ratings(
        fedgnn(**{**_MATCHED, "train_neighbours": True, "expansion_start": 2}), model=recommender("gat", 3)
    ),
    "fedgnn kept pseudo items": ratings(
        fedgnn(pseudo_items=5, pseudo_gradients="kept", pseudo_norms="normal", audit_users=4), privacy=_L2
    ),
    "fedgnn all pseudo items": ratings(fedgnn(pseudo_items="all"), privacy=_L1),
    "fedgnn refreshed pseudo items": ratings(fedgnn(pseudo_items=5, pseudo_refresh=True, audit_users=4)),
    "fedgnn ranking": ratings(fedgnn(**_MATCHED), task=_RANKING, model=lightgcn(2, 3)),
    "fedavg ranking": ratings(local_models(), task=_BY_NDCG),
    "fedavg ranking, half": ratings(
        local_models(users_per_round=None, server_optimizer="adam", server_lr=0.05, row_average="participants"),
        task=_RANKING,
        fraction=0.5,
    ),
    "fedavg ranking, averaged": ratings(
        local_models(iterate_average=0.7, loss="mean", pseudo_items=4), task=_RANKING, model=lightgcn(0)
    ),
    "perfedrec": ratings(perfedrec(), task=_BY_NDCG),
    "perfedrec validation": ratings(perfedrec(weights="validation", selection="size"), task=_RANKING),
    "perfedrec pseudo items": ratings(perfedrec(pseudo_items=5, audit_users=3), task=_RANKING),
    "perfedrec noised": ratings(perfedrec(pseudo_items=5), task=_RANKING, privacy=_LINF),
    "perfedrec parameters": ratings(
        perfedrec(combination="parameters", weights=[0.5, 0.3, 0.2], selection="random"), task=_RANKING
    ),
    "perfedrec some agree": ratings(
        perfedrec(agreeing=0.7, cluster_noise=0.2, cluster_pull=0.5, iterate_average=0.5), task=_RANKING
    ),
    "perfedrec matched": ratings(perfedrec(**_MATCHED), task=_RANKING, model=lightgcn(2, 3)),
}

CASES = {**GRAPHS, **RATINGS}
