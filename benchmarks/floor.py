r"""The floor: the same training in one plain PyTorch process, without a federation.

It is the first version that a competent user would write: a loop over clients; for each client one `torch.nn.Module`
of PyG's ``GCNConv`` and ``nn.Linear`` on dense features, as PyG loads them, and one `torch.optim.Adam` with plain
defaults; a mask is a parametrisation of a weight. Every round each client loads the broadcast, is evaluated as
received, trains its local epochs, is evaluated again and, for FED-PUB, embeds its model on the random graph; then
models are averaged. FED-PUB prunes before each of the two evaluations, by rank or by threshold as the app does, and
averages a weight over the clients that kept it. Ranks are made once for each pruning, and their limit is found on a
sample of the same size as the app's. The floor packs, sends and records nothing and keeps no best model, so a
federation that is as fast has no overhead.

The command takes the overrides of `subfl` and writes ``metrics.jsonl`` in the run directory:

    OMP_NUM_THREADS=1 python benchmarks/floor.py method=fedpub dataset=cora partition.clients=50 federation.rounds=30
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv
from torch_geometric.utils import stochastic_blockmodel_graph

from subfl_flower.composition import composed_config
from subfl_flower.config import Config
from subfl_flower.data.datasets import DatasetSettings
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph
from subfl_flower.data.prepared.partition import PreparedPartition, prepare
from subfl_flower.errors import SubflError
from subfl_flower.node.node import compute_device
from subfl_flower.tasks.choices import Ranking

METHODS = ("local", "fedavg", "fedpub")

_SAMPLE = 1 << 14
"""Entries of a client by which the limit of its pruned entries is found."""


@dataclass(frozen=True)
class FloorSettings:
    """The local step and FED-PUB's knobs, with the names and meanings of ``conf/``."""

    local_epochs: int = 1
    hidden: int = 128
    dropout: float = 0.5
    lr: float = 0.01
    weight_decay: float = 1e-6
    tau: float = 3.0
    sparsity: float | None = 0.6
    sparsity_reached: float = 0.5
    mask_l1: float = 0.0
    mask_threshold: float = 0.7
    proximal: float = 1e-3
    random_blocks: int = 5
    random_block_nodes: int = 100
    random_p_in: float = 0.1
    random_p_out: float = 0.01
    device: str = "cpu"


@dataclass(frozen=True)
class FloorRound:
    """One round: its number, mean metrics over clients, and the seconds it took."""

    round: int
    validation: float
    test: float
    test_as_received: float
    train_loss: float
    seconds: dict[str, float]


class GCN(nn.Module):
    """Two convolutions and a linear classifier, ReLU and dropout after each convolution."""

    def __init__(self, num_features: int, num_classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = GCNConv(num_features, hidden)
        self.conv2 = GCNConv(hidden, hidden)
        self.classifier = nn.Linear(hidden, num_classes)
        self.dropout = dropout

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Logits [nodes, classes]."""
        x = F.dropout(self.conv1(x, edge_index).relu(), self.dropout, self.training)
        x = F.dropout(self.conv2(x, edge_index).relu(), self.dropout, self.training)
        return self.classifier(x)

    def functional_embedding(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Mean over nodes of the second convolution's output [hidden]."""
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index).mean(0)


class Mask(nn.Module):
    """θ ⊙ µ; outside training the pruned entries of µ are zero."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.ones_like(weight))
        self.pruned = self.mask.detach()

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight."""
        return weight * (self.mask if self.training else self.pruned)


class FloorClient:
    """One client: its graph, model, masks and optimiser."""

    def __init__(self, data: Data, model: GCN, masked: bool, settings: FloorSettings) -> None:
        self.data = data
        self.model = model
        self.settings = settings
        self.shared = list(model.parameters())
        self.layers: dict[int, Mask] = {}
        """Masks by the place of their weight in `shared`."""
        if masked:
            for owner in (model.conv1.lin, model.conv2.lin, model.classifier):
                place = next(i for i, parameter in enumerate(self.shared) if parameter is owner.weight)
                self.layers[place] = Mask(owner.weight)
                parametrize.register_parametrization(owner, "weight", self.layers[place])
        self.masks = [layer.mask for layer in self.layers.values()]
        self.optimizer = torch.optim.Adam(
            [*self.shared, *self.masks], lr=settings.lr, weight_decay=settings.weight_decay
        )

    @torch.no_grad()
    def load(self, received: list[Tensor]) -> None:
        """Load the received parameters."""
        for parameter, value in zip(self.shared, received, strict=True):
            parameter.copy_(value)

    @torch.no_grad()
    def prune(self, received: list[Tensor], share: float | None) -> None:
        """Prune a share of all weights, the smallest of received times mask; None: where the mask is small."""
        if share is None:
            for layer in self.layers.values():
                layer.pruned = F.hardshrink(layer.mask, self.settings.mask_threshold)
            return
        ranks = {place: (received[place] * layer.mask).abs_() for place, layer in self.layers.items()}
        step = max(1, sum(rank.numel() for rank in ranks.values()) // _SAMPLE) | 1
        sample = torch.cat([rank.flatten()[::step] for rank in ranks.values()])
        smallest = round(share * len(sample))
        limit = sample.kthvalue(smallest).values if smallest else sample.new_tensor(-1.0)
        for place, layer in self.layers.items():
            layer.pruned = layer.mask * (ranks[place] > limit)

    @torch.no_grad()
    def upload(self) -> list[Tensor]:
        """The shared parameters, zero where pruned."""
        values = [parameter.detach() for parameter in self.shared]
        for place, layer in self.layers.items():
            values[place] = values[place] * (layer.pruned != 0)
        return values

    def train(self, received: list[Tensor], proximal: bool) -> float:
        """Local epochs of full-batch steps; the loss on the training nodes before the last step."""
        self.model.train()
        for _ in range(self.settings.local_epochs):
            self.optimizer.zero_grad()
            logits = self.model(self.data.x, self.data.edge_index)
            loss = F.cross_entropy(logits[self.data.train_mask], self.data.y[self.data.train_mask])
            objective = loss
            if self.masks and self.settings.mask_l1:
                objective = objective + self.settings.mask_l1 * sum(mask.abs().sum() for mask in self.masks)
            if proximal:
                pairs = zip(self.shared, received, strict=True)
                objective = objective + self.settings.proximal * sum((p - r).pow(2).sum() for p, r in pairs)
            objective.backward()
            self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Accuracy on validation and on test nodes."""
        self.model.eval()
        correct = self.model(self.data.x, self.data.edge_index).argmax(-1) == self.data.y
        return float(correct[self.data.val_mask].float().mean()), float(correct[self.data.test_mask].float().mean())

    @torch.no_grad()
    def embed(self, probe: Data) -> Tensor:
        """Functional embedding [hidden] on the random graph."""
        self.model.eval()
        return self.model.functional_embedding(probe.x, probe.edge_index)


def run_floor(
    partition: PreparedPartition,
    method: str,
    rounds: int,
    seed: int,
    settings: FloorSettings | None = None,
    initial: Mapping[str, np.ndarray] | None = None,
    on_round: Callable[[FloorRound], None] = lambda _: None,
) -> tuple[list[float], list[FloorRound]]:
    """Train all clients of a partition, one after another.

    Args:
        partition: the clients' data.
        method: ``local``, ``fedavg`` or ``fedpub``.
        rounds: number of rounds.
        seed: seed of initialisation, dropout and the random graph.
        settings: the local step and FED-PUB's knobs.
        initial: first parameters in `StackedGCN`'s names and shapes, for all clients; else drawn from `seed`.
        on_round: called after every round.

    Returns:
        Seconds of every round, and every round's metrics.

    Raises:
        SubflError: there is no such method.
    """
    if method not in METHODS:
        raise SubflError(f"the floor has the methods {', '.join(METHODS)}, not {method!r}")
    settings = settings or FloorSettings()
    torch.manual_seed(seed)
    model = GCN(partition.num_features, partition.num_classes, settings.hidden, settings.dropout).to(settings.device)
    if initial is not None:
        _take_initial(model, initial)
    first = [parameter.detach().clone() for parameter in model.parameters()]
    clients = [
        FloorClient(
            _data(partition.client(client)).to(settings.device), copy.deepcopy(model), method == "fedpub", settings
        )
        for client in range(partition.num_clients)
    ]
    probe = _random_graph(partition.num_features, settings).to(settings.device)
    examples = torch.tensor([float(client.data.train_mask.sum()) for client in clients], device=settings.device)
    received = [first] * len(clients)
    history: list[FloorRound] = []
    for server_round in range(1, rounds + 1):
        start = time.perf_counter()
        before, after, losses, embeddings = [], [], [], []
        share = None if settings.sparsity is None else settings.sparsity * _progress(server_round, rounds, settings)
        for client, parameters in zip(clients, received, strict=True):
            client.load(parameters)
            if method == "fedpub":
                client.prune(parameters, share)
            before.append(client.evaluate())
            losses.append(client.train(parameters, proximal=method == "fedpub" and server_round > 1))
            if method == "fedpub":
                client.prune(parameters, share)
            after.append(client.evaluate())
            if method == "fedpub":
                embeddings.append(client.embed(probe))
        trained = time.perf_counter()
        received = _aggregated(method, clients, examples, embeddings, settings.tau)
        end = time.perf_counter()
        seconds = {"round": end - start, "client": trained - start, "server": end - trained, "transport": 0.0}
        validation, test = np.nanmean(after, axis=0)
        record = FloorRound(
            round=server_round,
            validation=float(validation),
            test=float(test),
            test_as_received=float(np.nanmean(before, axis=0)[1]),
            train_loss=float(np.mean(losses)),
            seconds=seconds,
        )
        history.append(record)
        on_round(record)
    return [record.seconds["round"] for record in history], history


def _progress(server_round: int, rounds: int, settings: FloorSettings) -> float:
    """The part of the final sparsity that a round has, on a cubic curve."""
    end = settings.sparsity_reached * rounds
    return 1 - (1 - min(server_round / end, 1.0)) ** 3 if end else 1.0


@torch.no_grad()
def _aggregated(
    method: str, clients: list[FloorClient], examples: Tensor, embeddings: list[Tensor], tau: float
) -> list[list[Tensor]]:
    """The next broadcast to every client."""
    uploads = [client.upload() for client in clients]
    if method == "local":
        return [[value.clone() for value in upload] for upload in uploads]
    stacks = [torch.stack(values) for values in zip(*uploads, strict=True)]
    if method == "fedavg":
        weights = examples / examples.sum()
        average = [torch.einsum("j,j...->...", weights, stack) for stack in stacks]
        return [average] * len(clients)
    unit = F.normalize(torch.stack(embeddings), dim=1)
    mixing = torch.softmax(tau * unit @ unit.T, dim=1)
    mixed = [torch.einsum("ij,j...->i...", mixing, stack) for stack in stacks]
    for place in clients[0].layers:
        # Over the clients that kept a weight; a client receives the weights that it kept.
        kept = (stacks[place] != 0).float()
        share = torch.einsum("ij,j...->i...", mixing, kept)
        mixed[place] = mixed[place].div_(share.clamp_min_(torch.finfo(share.dtype).tiny)).mul_(kept)
    return [[stack[i] for stack in mixed] for i in range(len(clients))]


def _data(graph: ClientGraph) -> Data:
    """A client's graph in PyG's form: dense features, an edge list, boolean node masks."""
    features: Any = graph.features
    if scipy.sparse.issparse(features):
        features = features.toarray()
    roles = torch.from_numpy(graph.roles)
    return Data(
        x=torch.from_numpy(np.asarray(features, dtype=np.float32)),
        edge_index=torch.from_numpy(graph.edge_index),
        y=torch.from_numpy(graph.labels),
        train_mask=roles == TRAIN,
        val_mask=roles == VALIDATION,
        test_mask=roles == TEST,
    )


def _random_graph(num_features: int, settings: FloorSettings) -> Data:
    """FED-PUB's random graph: a stochastic block model with features N(0, 1)."""
    blocks = settings.random_blocks
    probabilities = torch.full((blocks, blocks), settings.random_p_out)
    probabilities.fill_diagonal_(settings.random_p_in)
    edge_index = stochastic_blockmodel_graph([settings.random_block_nodes] * blocks, probabilities)
    return Data(x=torch.randn(blocks * settings.random_block_nodes, num_features), edge_index=edge_index)


@torch.no_grad()
def _take_initial(model: GCN, initial: Mapping[str, np.ndarray]) -> None:
    """Set the model to parameters of `StackedGCN`, whose weights are [in, out]; PyTorch's are [out, in]."""
    for name, owner in (("conv1", model.conv1.lin), ("conv2", model.conv2.lin), ("classifier", model.classifier)):
        owner.weight.copy_(torch.from_numpy(initial[f"{name}.weight"]).T)
    for name, owner in (("conv1", model.conv1), ("conv2", model.conv2), ("classifier", model.classifier)):
        owner.bias.copy_(torch.from_numpy(initial[f"{name}.bias"]))


def run_configured(config: Config, on_round: Callable[[FloorRound], None]) -> None:
    """Run a configuration.

    Raises:
        SubflError: its method is not one of the floor's, or its data cannot be prepared.
    """
    assert isinstance(config.dataset, DatasetSettings)
    partition = prepare(config.dataset, config.partition, config.data.root, config.data.cache)
    chosen = {name: value for name, value in config.method.knobs.items() if value is not None}
    knobs = {**config.model.model_dump(), **config.optimizer.model_dump(), **config.federation.model_dump(), **chosen}
    knobs["device"] = compute_device(config.runtime.device).type
    knobs["sparsity"] = config.method.knobs.get("sparsity")  # null is a choice, too
    if knobs.get("tau") == "auto":
        knobs["tau"] = 5.0 if partition.overlapping else 3.0
    settings = FloorSettings(**{name: knobs[name] for name in FloorSettings.__dataclass_fields__ if name in knobs})
    run_floor(partition, config.method.name, config.federation.rounds, config.seed, settings, on_round=on_round)


def main(overrides: list[str]) -> None:
    """Run with the overrides of `subfl`; one JSON line a round in the run directory's ``metrics.jsonl``."""
    import ranking_floor
    import rating_floor
    from user_floor import UserFloorRound

    config, directory = composed_config(overrides)
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "metrics.jsonl").open("w", buffering=1) as file:

        def write(record: FloorRound | UserFloorRound) -> None:
            file.write(json.dumps(asdict(record)) + "\n")

        if config.dataset.kind == "graph":
            run_configured(config, write)
        elif isinstance(config.task, Ranking):
            ranking_floor.run_configured(config, write)
        else:
            rating_floor.run_configured(config, write)


if __name__ == "__main__":
    main(sys.argv[1:])
