"""FED-PUB's strategy in Flower's own loop: ``start`` of a Flower strategy."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from subfl_flower.api import make_strategy
from subfl_flower.client_app import app as client_app

OVERRIDES = ["method=fedpub", "dataset=digits", "partition.clients=4"]

server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for three rounds, and print which clients learn from which."""
    strategy, run = make_strategy(OVERRIDES, grid)
    result = strategy.start(grid, ArrayRecord(), num_rounds=3, train_config=run)
    for server_round, figures in result.train_metrics_clientapp.items():
        print(f"round {server_round}: test {figures['test']:.4f}")
    print(strategy.mixing.round(2))


if __name__ == "__main__":
    run_simulation(server_app, client_app, num_supernodes=2)
