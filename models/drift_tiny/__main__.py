"""`python -m drift_tiny train|export|evaluate`."""

import argparse
import shutil
from pathlib import Path

from drift_tiny import checkpoint_path


def main() -> None:
    """Parse the command line; torch is imported only by the command that needs it."""
    parser = argparse.ArgumentParser(
        prog="python -m drift_tiny", description="Train and evaluate drift-tiny."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train on one CPU thread and write the checkpoint at the end")
    train.add_argument("--minutes", type=float, default=90.0, help="CPU time granted to the whole run")
    train.add_argument(
        "--run", type=Path, default=Path("build/drift-tiny"), help="scratch folder: state, tokenizer"
    )
    train.add_argument("--resume", action="store_true", help="go on from the scratch folder's state")
    train.add_argument("--seed", type=int, default=1)
    train.add_argument("--eager", action="store_true", help="do not compile: slower, but starts at once")
    train.add_argument("--out", type=Path, default=checkpoint_path())
    evaluate = commands.add_parser(
        "evaluate", help="answer held-out questions, write evaluation.json and the card"
    )
    evaluate.add_argument("--checkpoint", type=Path, default=checkpoint_path())
    evaluate.add_argument("--samples", type=int, default=200, help="questions per generated kind")
    arguments = parser.parse_args()
    if arguments.command == "train":
        from drift_tiny import checkpoints, training

        options = training.Options(
            arguments.run, arguments.minutes, arguments.resume, arguments.seed, compiled=not arguments.eager
        )
        vocabulary = checkpoints.load_tokenizer(arguments.run)
        checkpoints.export(training.train(options, vocabulary), vocabulary, arguments.out)
        shutil.copy(arguments.run / "training.json", arguments.out)
    else:
        from drift_tiny import evaluation

        evaluation.run(arguments.checkpoint, arguments.samples)


if __name__ == "__main__":
    main()
