"""A whole run on the server, the same under every runtime: roster, rounds, records, summary."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from logging import WARNING
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from subfl_flower.code_folder import adopted
from subfl_flower.config import Config
from subfl_flower.errors import SubflError
from subfl_flower.evaluation.summary import best_record, exchanged, summarise
from subfl_flower.flower.delivery import send_and_wait
from subfl_flower.flower.heard_grid import HeardGrid
from subfl_flower.flower.log import log
from subfl_flower.loggers import Logger, build_loggers
from subfl_flower.node.domain import Prepared, domain_of
from subfl_flower.node.run_context import run_context
from subfl_flower.registry import client_class, needs_matcher, strategy_class
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.runs.provenance import provenance
from subfl_flower.runs.remarks import print_remarks
from subfl_flower.runs.sources import sources_of
from subfl_flower.server.checkpoint import Checkpoint, CheckpointTimes
from subfl_flower.server.exchange import Exchange
from subfl_flower.server.measuring.evaluation_modes import EvaluationModes
from subfl_flower.server.membership import Membership
from subfl_flower.server.monitoring.monitor import RunMonitor
from subfl_flower.server.progress import RunProgress
from subfl_flower.server.round_messages import KEEP, RUN, announced
from subfl_flower.server.round_records import bytes_of_models, mean_seconds, without_test_figures
from subfl_flower.server.rounds import Rounds
from subfl_flower.server.run_schema import run_schema
from subfl_flower.server.secure_sums.summed_round import sums_of_run
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.storage.fingerprints import require_same_data
from subfl_flower.trust.attempts import open_attempt
from subfl_flower.trust.members import Admission
from subfl_flower.trust.orders import ATTEMPT
from subfl_flower.wire.bundle import bundle
from subfl_flower.wire.choice import Choice
from subfl_flower.wire.contract import require_form
from subfl_flower.wire.memory import keep_freed_memory
from subfl_flower.wire.payload import pack
from subfl_flower.wire.roster import Roster, describe_error


def run_federation(
    grid: Grid,
    config: Config,
    directory: Path,
    stop: threading.Event,
    *,
    lines: bool | None = False,
    resume: bool = False,
    said: set[str] | None = None,
    admission: Admission | None = None,
) -> dict[str, Any]:
    """Train, and leave a run directory.

    Args:
        grid: the connection to the nodes.
        config: of the run.
        directory: the run directory; made if need be.
        stop: set it to end the run after the current round; finished rounds are kept.
        lines: print progress lines where there is no terminal; None shows no progress.
        resume: go on with the run in `directory` after its checkpoint.
        said: remarks on data that earlier jobs of a sweep have printed; this run's are added.
        admission: decides which clients a node may host; None: any.

    Returns:
        The summary.

    Raises:
        SubflError: the data cannot be prepared, a node cannot be reached, or a client failed and
            ``runtime.on_client_failure`` is ``stop``. The run directory then says so in its summary.
    """
    keep_freed_memory()
    prepared = None if config.runtime.deployed else domain_of(config).prepare(config)
    loggers = build_loggers(config.logger)
    if resume:
        checkpoint = resumable(config, directory)
        if prepared is not None:
            require_same_data(prepared.data, RunDirectory(directory).data(), str(directory), "resume")
        records = RunDirectory.reopen(directory, checkpoint.server_round)
        shutil.rmtree(directory / "state", ignore_errors=True)  # of a process that was killed
    else:
        checkpoint = None
        records = RunDirectory.create(directory)
    records.write_config(config.plain())
    if prepared is not None:
        sources = sources_of(config)
        records.write_data({**prepared.data, **({"sources": sources} if sources else {})})
        print_remarks(prepared.data["dropped"], prepared.data["warnings"], said)
    watched = HeardGrid(grid) if config.runtime.deployed else None
    run = _Run(watched or grid, config, records, checkpoint, prepared, admission)
    monitor = RunMonitor(config, records, watched, run) if watched else None
    status = "failed"
    try:
        if monitor:
            monitor.begin(run.finished)
        for logger in loggers:
            logger.start(config.plain(), records)
        title = f"{config.method.name} on {config.dataset.name}"
        with RunProgress(title, config.federation.rounds, lines, monitor) as progress:
            strategy = run.begin(progress)
            progress.start_rounds()
            for record in run.rounds(strategy):
                for logger in loggers:
                    logger.log_round(record)
                progress.advance(record)
                if stop.is_set():
                    break
        if stop.is_set():
            run.keep_for_later()
        run.measure_modes()
        if config.record.client_models:
            run.export()
        status = "interrupted" if len(run.finished) < config.federation.rounds else "completed"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        summary = {"status": status, **run.summary()}
        records.write_summary(summary)
        if monitor:
            monitor.finish(summary)
        if loggers and run.finished:
            _attach(loggers, records)
        for logger in loggers:
            logger.finish(summary)
        shutil.rmtree(directory / "state", ignore_errors=True)
        if status == "completed" and config.checkpoint_every is None:
            shutil.rmtree(records.checkpoint_folder, ignore_errors=True)
    return summary


def _attach(loggers: Sequence[Logger], records: RunDirectory) -> None:
    """Give tables, figures and models to the loggers; the run is recorded even where they refuse them."""
    from subfl_flower.evaluation.outcome import outcome_of  # loads pandas and matplotlib

    try:
        outcome = outcome_of(records)
        for logger in loggers:
            logger.attach(outcome)
    except Exception as error:  # a logger's package raises its own
        log(WARNING, "tables, figures and models were not logged: %s", error)


def resumable(config: Config, directory: Path) -> Checkpoint:
    """The checkpoint that the run in `directory` can go on from.

    Raises:
        SubflError: it has no checkpoint, or has finished its rounds.
    """
    run = RunDirectory(directory)
    checkpoint, rounds = Checkpoint.read(run.checkpoint_folder), config.federation.rounds
    completed = (run.summary() or {}).get("status") == "completed"
    # A run that was killed after its last round has only its models and its summary left to write.
    if checkpoint.server_round > rounds or (checkpoint.server_round == rounds and completed):
        raise SubflError(
            f"{directory} has finished its {checkpoint.server_round} rounds; federation.rounds=... lets it go on"
        )
    return checkpoint


class _Run:
    """One run: its nodes, its rounds, its records so far.

    Args:
        grid: the connection to the nodes.
        config: of the run.
        records: its run directory.
        checkpoint: the checkpoint from which it goes on; None at its start.
        prepared: all clients' data, in a simulation.
        admission: decides which clients a node may host; None: any.

    Attributes:
        finished: the records of the finished rounds.
    """

    def __init__(
        self,
        grid: Grid,
        config: Config,
        records: RunDirectory,
        checkpoint: Checkpoint | None,
        prepared: Prepared | None,
        admission: Admission | None = None,
    ) -> None:
        self._prepared = prepared
        self._grid, self._config, self._records, self._checkpoint = grid, config, records, checkpoint
        self.finished: list[dict[str, Any]] = records.rounds() if checkpoint else []
        self._exchange: Exchange | None = None
        self._strategy: CohortStrategy | None = None
        task = config.task
        self._modes = EvaluationModes(task, config.seed) if config.record.evaluation_modes else None  # type: ignore[arg-type]
        self._modes_found: dict[str, Any] | None = None
        self._started = time.time() - (checkpoint.seconds if checkpoint else 0.0)
        self._processor_time = time.process_time() if config.runtime.one_process and checkpoint is None else None
        self.run_id = checkpoint.run_id if checkpoint else secrets.token_hex(8)
        deployed = config.runtime.deployed
        # Nodes of a simulation share the server's disk; a node elsewhere need not know of the server's folders.
        folder = "" if deployed else str(records.path.absolute())
        about = {"config": json.dumps(config.for_nodes()), "id": self.run_id, "directory": folder}
        code = "" if deployed else str(adopted() or "")
        attempt = {ATTEMPT: open_attempt(records.checkpoint_folder)} if deployed else {}
        self._record = ConfigRecord({**about, **attempt, "code": code, "resumed": checkpoint is not None})
        self._times = CheckpointTimes() if config.checkpoint_every is None else None
        self._last_checkpoint = checkpoint.server_round if checkpoint else 0
        self._membership = Membership(
            grid,
            self._record,
            config.dataset.name,
            run_schema(config, prepared),
            tolerant=config.runtime.on_client_failure == "continue" and deployed,
            patience=config.runtime.node_timeout,
            min_clients=config.federation.min_clients,
            max_clients=config.federation.max_clients,
            known=checkpoint.roster if checkpoint else None,
            size_bound=config.aggregation.size_bound if deployed else None,
            needs_matcher=needs_matcher(config),
            admission=admission,
        )
        self._roster: Roster | None = None

    def begin(self, progress: RunProgress) -> CohortStrategy:
        """Wait for the nodes, and prepare the strategy for the first round."""
        config = self._config
        self._roster = roster = self._membership.gather(progress.wait)
        if self._prepared is None:
            self._records.write_data({"fingerprints": {"clients": self._membership.fingerprints}})
        context = run_context(config, roster.shape, self.run_id)
        contract = client_class(config.method).contract(context)
        require_form(config.wire.dtype, contract, config.method.name)
        strategy = strategy_class(config.method)(context, roster, contract)
        self._exchange = Exchange(
            self._grid,
            self._record,
            roster,
            config.runtime.on_client_failure == "continue",
            config.federation.round_timeout,
            config.runtime.poll_seconds,
        )
        self._exchange.announce = progress.ask
        if self._checkpoint is None:
            strategy.set_up(self._exchange)
            if config.checkpoint_every:
                self._write_checkpoint(strategy, 0)
            elif self._times and self._times.is_due:
                self._checkpoint_everything(strategy, 0)
        else:
            self._exchange.log.extend(self._checkpoint.exchanges)
            kept = self._checkpoint.strategy
            strategy.load_state(kept if self._modes is None else self._modes.load_state(kept))
        self._strategy = strategy
        return strategy

    def rounds(self, strategy: CohortStrategy) -> Iterator[dict[str, Any]]:
        """Train round after round; each round's record, once all its files are written."""
        assert self._exchange is not None
        config, clustering = self._config, None
        rounds = Rounds(self._grid, config, strategy, self._membership, self._exchange, self._record, self.finished)
        for record in rounds:
            self._roster, server_round = strategy.roster, record["round"]
            self._records.append_round(record)
            self.finished.append(record)
            if strategy.mixing is not None and (
                server_round % config.record.mixing_every == 0 or server_round == config.federation.rounds
            ):
                self._records.add_mixing(server_round, strategy.mixing)
            if strategy.clustering is not None and strategy.clustering is not clustering:
                clustering = strategy.clustering
                self._records.add_clusters(server_round, clustering.client_ids, clustering.labels, clustering.points)
            if self._modes is not None and best_record(self.finished) is record:
                self._modes.take(self._measuring(), server_round)
            if rounds.is_due(server_round):
                self._write_checkpoint(strategy, server_round)
            elif self._times and self._times.is_due and server_round < config.federation.rounds:
                self._checkpoint_everything(strategy, server_round)
            rounds.last_checkpoint = self._last_checkpoint
            yield record

    def members(self) -> tuple[Roster | None, Sequence[Mapping[str, Any]]]:
        """The present roster, None before there is one; and clients and reason of each refused node."""
        return self._roster, self._membership.refusals

    def exchanged_bytes(self) -> dict[str, int]:
        """Bytes up and down outside of rounds, so far."""
        return exchanged(self._exchange.log if self._exchange else [])

    def privacy(self) -> Mapping[str, Any] | None:
        """The guarantees of the uploads so far; None where there are none."""
        if self._strategy is None or self._config.privacy.mechanism == "none":
            return None
        return self._strategy.report(None).get("privacy")

    def keep_for_later(self) -> None:
        """Write a checkpoint of a simulation that ends before its last round, unless it ends in its first minute."""
        reached = len(self.finished)
        outlived = time.time() - self._started >= CheckpointTimes.seconds
        if (
            self._times
            and self._strategy
            and outlived
            and self._last_checkpoint < reached < self._config.federation.rounds
        ):
            self._checkpoint_everything(self._strategy, reached)

    def _checkpoint_everything(self, strategy: CohortStrategy, server_round: int) -> None:
        """Have every node keep its clients' states, and write a checkpoint; the run goes on where that fails."""
        assert self._times is not None
        with self._times.measured():
            about = ConfigRecord(
                {**self._record, "round": server_round, "checkpoint": self._last_checkpoint, "keep": True}
            )
            nodes = sorted(strategy.roster.by_node(range(len(strategy.roster))))
            messages = [Message(RecordDict({RUN: about}), node, f"query.{KEEP}") for node in nodes]
            timeout = self._config.federation.round_timeout
            replies = list(send_and_wait(self._grid, messages, timeout, self._config.runtime.poll_seconds))
            reasons = [describe_error(reply) for reply in replies if reply.has_error()]
            try:
                if reasons or len(replies) < len(messages):
                    raise SubflError(reasons[0] if reasons else "a node does not reply")
                self._write_checkpoint(strategy, server_round)
            except SubflError as error:
                log(WARNING, "no checkpoint after round %d: %s", server_round, error)

    def _write_checkpoint(self, strategy: CohortStrategy, server_round: int) -> None:
        self._records.force_rounds_to_disk()
        Checkpoint(
            run_id=self.run_id,
            server_round=server_round,
            roster=strategy.roster,
            strategy={**strategy.state(), **(self._modes.state() if self._modes else {})},
            exchanges=self._exchange.log if self._exchange else [],
            seconds=time.time() - self._started,
        ).write(self._records.checkpoint_folder)
        self._last_checkpoint = server_round

    def measure_modes(self) -> None:
        """Measure the best round's models on their own and on all test examples, where the run records that."""
        if self._modes is not None:
            self._modes_found = self._modes.report(self._measuring())

    def _measuring(self) -> Exchange:
        """An exchange for measurements of a simulation, whose bytes are none of the method's."""
        assert self._roster is not None
        assert self._strategy is not None
        exchange = Exchange(self._grid, self._record, self._roster, tolerant=False)
        exchange.next_round = len(self.finished) + 1
        exchange.about = {
            **self._record,
            "checkpoint": self._last_checkpoint,
            **announced(self._strategy.announcements),
        }
        return exchange

    def export(self) -> None:
        """Have every node write its clients' best models."""
        assert self._roster is not None
        assert self._strategy is not None
        about = ConfigRecord(
            {**self._record, **announced(self._strategy.announcements), "round": len(self.finished) + 1}
        )
        model, ids = self._strategy.model(), self._roster.client_ids
        everyone = model if isinstance(model, Choice) else Choice.for_all(model, len(ids))
        messages = []
        for node, positions in sorted(self._roster.by_node(range(len(ids))).items()):
            content = RecordDict({RUN: ConfigRecord({**about, "clients": [ids[position] for position in positions]})})
            pack(everyone.of(positions)).into(content)
            if self._config.bundling is not None:
                bundle(content, self._config.bundling)
            messages.append(Message(content, node, "query.export"))
        timeout = self._config.federation.round_timeout
        replies = send_and_wait(self._grid, messages, timeout, self._config.runtime.poll_seconds)
        # The training is finished and recorded; a model that cannot be written does not undo it.
        for reply in replies:
            if reply.has_error():
                log(WARNING, "the models of a node's clients were not written: %s", describe_error(reply))
        if missing := len(messages) - len(replies):
            log(WARNING, "%d nodes did not say whether they wrote their clients' models", missing)

    def summary(self) -> dict[str, Any]:
        """The run so far, but for its status.

        `model_parameters` counts the values of the initial model, those of personal layers included. Parameters that a
        method adds (masks, a user's own embedding) are not counted. The entry is absent where no round has trained a
        model. `bytes_parts` holds the bytes that models of FedAvg would have in both directions of the run's rounds:
        whole ones, and ones without the rows of features that a client does not have. `cpu_seconds` is the processor
        time of a run in one process, absent after `resume`.
        """
        found = {**provenance(self._config, len(self._roster) if self._roster else None), **summarise(self.finished)}
        found["run_id"] = self.run_id
        found["seconds"] = time.time() - self._started
        if self._processor_time is not None:
            found["cpu_seconds"] = time.process_time() - self._processor_time
        found["seconds_per_round"] = mean_seconds(self.finished)
        exchanges = found["exchanges"] = self._exchange.log if self._exchange else []
        outside = found["bytes_exchanges"] = exchanged(exchanges)
        for way, size in outside.items():
            found[f"bytes_{way}"] += size
        if (sums := sums_of_run(self.finished)) is not None:
            found["secure_sums"] = sums
            for way in outside:
                found[f"bytes_{way}"] += sums[f"bytes_{way}"]
        if self._strategy is not None:
            if any("train_loss" in record for record in self.finished):  # popularity and the bias row have no model
                initial = self._strategy.run.initial
                found["model_parameters"] = sum(value.size for value in initial.values())
            if self._prepared is not None:
                sizes = self._strategy.model_bytes(self._prepared)
                found["bytes_parts"] = bytes_of_models(self.finished, self._strategy.roster.client_ids, sizes)
            further = self._strategy.report(self._prepared)
            found.update(further if self._config.record.test else without_test_figures(further))
        if self._modes_found is not None:
            found["evaluation_modes"] = self._modes_found
        if self._membership.refusals:
            found["refused"] = self._membership.refusals
        return found
