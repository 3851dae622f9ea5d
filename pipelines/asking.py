"""What masks and points have in common: the sentences of a shard asked of SAM, each image embedded once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipelines import stage
from pipelines.doors import open_sam_door
from ppt.backbones.sam import SamModel
from ppt.config import Config
from ppt.places import Place
from ppt.points.prompter import Prompter
from ppt.points.scene import Example
from ppt.prompting import Answer, Rules, ask
from ppt.records import images
from ppt.shard import Failure, Shard
from ppt.store import Artifact
from ppt.types import DenseFeatures, Record, RelevanceMap


@dataclass(frozen=True)
class Asking:
    """What one process keeps: the model, the artifacts it reads, and where and how images are read."""

    sam: SamModel
    prompter: Prompter
    records: Artifact
    relevance: Artifact
    root: Place
    policy: images.ImagePolicy
    rules: Rules

    def answers(
        self,
        stage_name: str,
        shard: Shard,
        failures: list[Failure],
        wanted: Callable[[Record], bool] = lambda _: True,
    ) -> Iterator[list[tuple[Record, Example, Answer]]]:
        """For each image of the shard, what came of its wanted sentences; where nothing did, `failures` gets
        the reason.
        """
        tensors = self.relevance.tensors(shard.key)
        groups = stage.by_content(
            self.records, shard.key, lambda record: f"map/{record.pair.id}" in tensors and wanted(record)
        )
        for sha256, asked in stage.attempted(shard, stage_name, failures, groups):
            examples = [example(tensors, record) for record in asked]
            image = asked[0].pair.image
            try:
                with stage.at_image(image):
                    found = ask(
                        self.sam,
                        lambda image=image, sha256=sha256: self.sam.embed(
                            images.load(self.root, image, self.policy, sha256).pixels
                        ),
                        self.prompter(examples),
                        [e.relevance for e in examples],
                        self.rules,
                        self.prompter.look(examples),
                    )
            except images.ImageError as error:
                failures += [Failure(stage_name, r.pair.id, error.error, error.message) for r in asked]
                continue
            except MemoryError as error:
                failures += stage.out_of_memory(stage_name, asked, error)
                continue
            except (FloatingPointError, ValueError) as error:  # masks or scores that are not finite
                failures += [Failure(stage_name, r.pair.id, "bad_masks", f"{image}: {error}") for r in asked]
                continue
            yield list(zip(asked, examples, found, strict=True))


def asking(config: Config, output: Place, prompter: Prompter, sam: SamModel | None = None) -> Asking:
    """For one process; loads SAM unless it is given."""
    return Asking(
        sam or open_sam_door(config, output),
        prompter,
        Artifact.open(output / "records"),
        Artifact.open(output / "relevance"),
        stage.images_root(config, output),
        stage.image_policy(config),
        rules(config),
    )


def rules(config: Config) -> Rules:
    """By which a mask is chosen, from the `masks` section."""
    return Rules(config.masks.choice, config.masks.min_area, config.masks.max_area)


def example(tensors: dict, record: Record) -> Example:
    """The example of one sentence, from the tensors of its shard of DIR/relevance."""
    return read_example(tensors, record.sha256, record.pair.id, (record.height, record.width))


def read_example(tensors: dict, image: str, id: str, size: tuple[int, int]) -> Example:
    """The example of a sentence `id` about an `image` of (height, width), both as the tensors name them."""
    features = DenseFeatures(tensors[f"dense/{image}"].astype("float32"), *size)
    words = tensors[f"words/{id}"].astype("float32")
    return Example(features, RelevanceMap(tensors[f"map/{id}"], *size), words)
