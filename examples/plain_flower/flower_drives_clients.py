"""Flower's own FedAvg and loop drive our clients, as they drive any ``NumPyClient``."""

from __future__ import annotations

from flwr.app import Context
from flwr.client import Client
from flwr.clientapp import ClientApp
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation

from subfl_flower.api import ContextStore, make_client

CLIENTS, ROUNDS = 4, 3
SUBGRAPHS = ["method=fedavg", "dataset=digits", f"partition.clients={CLIENTS}"]
USERS = ["method=fedavg", "dataset=synthetic_ratings", "task=ranking", f"dataset.users={CLIENTS}", "dataset.items=60"]


def weighted_mean(measured: list[tuple[int, dict]]) -> dict:
    """Mean figures of clients, weighted by their training examples."""
    examples = sum(count for count, _ in measured)
    return {name: sum(count * figures[name] for count, figures in measured) / examples for name in measured[0][1]}


def train(overrides: list[str]) -> None:
    """Three rounds of Flower's FedAvg; what comes of it is in Flower's log."""

    def client(context: Context) -> Client:
        number = int(context.node_config["partition-id"])
        return make_client(overrides, [number], ContextStore(context.state)).to_client()

    def server(context: Context) -> ServerAppComponents:
        strategy = FedAvg(fit_metrics_aggregation_fn=weighted_mean, evaluate_metrics_aggregation_fn=weighted_mean)
        return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=ROUNDS))

    run_simulation(ServerApp(server_fn=server), ClientApp(client_fn=client), num_supernodes=CLIENTS)


if __name__ == "__main__":
    train(SUBGRAPHS)
    train(USERS)
