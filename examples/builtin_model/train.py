"""Step 3, on the GPU: train on the shards in a folder, also while they are still being made.

    python train.py --data DIR --tekken tekken.json --sets DIR --out DIR --seconds 840

Every `--save-every` seconds the averaged weights are scored and OUT/last.pt is written; started
again with the same OUT it goes on from there. `--start-from FOLDER` begins with exported weights.
With `torchrun --nproc-per-node N train.py …` N GPUs share one run, each with clips of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from augment import OFFSET, Bank, Roughen, bend_mel, mask_mel, to_device, warp_time
from common import LEFT_PAD, N_SPECIAL, PAD, Bpe, Shape
from evaluate import read_set, score
from export import export
from feeder import Feeder
from group import Group
from model import Trainee, log_mel, mel_filters
from optim import Average, optimisers
from plan import Bucket, Plans
from schedule import Schedule
from teacher import POSITIONS, Teacher
from torch import Tensor
from vocode import vocode

TEACHER_LATE = 3  # frames of 20 ms by which the encoder may hear more than the teacher's frame
AGREE_EVERY, ALIGN_EVERY = 16, 256  # steps between what the processes of a group tell each other
NEW_HEAD_STEPS = 150  # exported weights hold no phone head: a warm start has to learn one


def forget(tokens: Tensor, delays: Tensor, share: float, gen: torch.Generator) -> Tensor:
    """Replace some of the generated tokens by a pad or by another text token."""
    position = torch.arange(tokens.shape[1], device=tokens.device)[None]
    mine = position > LEFT_PAD + delays[:, None]
    draw = torch.rand(tokens.shape, generator=gen, device=tokens.device)
    noise = torch.randint(
        N_SPECIAL, N_SPECIAL + 1_048, tokens.shape, generator=gen, device=tokens.device
    )
    other = torch.where(draw < 0.3 * share, noise, torch.full_like(tokens, PAD))
    return torch.where(mine & (draw < share), other, tokens)


def lose(audio: Tensor, share: float, gen: torch.Generator) -> Tensor:
    """Noise for some of the clips (B, T, dim), zeros for runs of three positions.

    So that the decoder meets an encoder in doubt, and context has to do.
    """
    if share == 0:
        return audio
    level = (
        0.5 * audio.detach().std() * torch.rand(len(audio), 1, 1, generator=gen, device=gen.device)
    )
    level = level * (torch.rand(level.shape, generator=gen, device=gen.device) < 0.5)
    noise = torch.randn(audio.shape, generator=gen, device=gen.device)
    audio = audio + (level * noise).to(audio.dtype)
    begins = torch.rand(audio.shape[:2], generator=gen, device=audio.device) < share / 3
    gone = F.max_pool1d(F.pad(begins[:, None].float(), (2, 0)), 3, 1)[:, 0] > 0
    return audio * ~gone[..., None]


def losses(
    model: Trainee,
    mel: Tensor,
    labels: Tensor,
    plan: dict[str, Any],
    tokens: Tensor,
    schedule: Schedule,
    u: float,
    gen: torch.Generator,
    new_head: bool = False,
    taught: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(total, text, phone, teacher) losses of a batch; new heads do not reach the encoder."""
    hidden = model.encode(mel)
    frame = torch.arange(labels.shape[1], device=labels.device)[None] * 320 - OFFSET
    heard = (frame >= 0) & (frame < plan["samples"][:, None]) & (labels < 255)
    phone = F.cross_entropy(
        model.phones(hidden.detach() if new_head else hidden).float().flatten(0, 1),
        torch.where(heard, labels, -100).flatten(),
    )
    distance = phone.new_zeros(())
    if taught is not None:
        guess = model.copy(hidden.detach() if new_head else hidden)[:, TEACHER_LATE:].float()
        n = min(guess.shape[1], taught.shape[1])
        apart = F.smooth_l1_loss(guess[:, :n], taught[:, :n], reduction="none").mean(-1)
        inside = heard[:, TEACHER_LATE:][:, :n]
        distance = (apart * inside).sum() / inside.sum()
    audio = model.adapt(hidden.detach() if schedule.encoder_alone(u) else hidden)
    audio = lose(audio, schedule.lost(u), gen)
    logits = model.decode(tokens, audio, plan["delays"]).float()
    wanted = plan["targets"]
    asked = wanted >= 0
    weight = torch.where(wanted == PAD, schedule.pad(u), 1.0) * asked
    ce = F.cross_entropy(
        logits.flatten(0, 1), wanted.clamp_min(0).flatten(), reduction="none"
    ).view_as(weight)
    text = (ce * weight).sum() / weight.sum()
    z = (logits.logsumexp(-1).square() * asked).sum() / asked.sum()
    total = text + schedule.phones(u) * phone + schedule.teach(u) * distance + 1e-4 * z
    return total, text, phone, distance


class Run:
    """One training run: model, average, optimisers, clock, and how they are stored."""

    def __init__(self, args: argparse.Namespace, group: Group) -> None:
        self.args, self.group, self.device = args, group, group.device
        device = group.device
        torch.manual_seed(args.seed)
        self.shape = Shape(**json.loads(args.shape))
        self.teacher = None if args.teacher is None else Teacher(args.teacher).to(device)
        width = 0 if self.teacher is None else self.teacher.width
        self.model = Trainee(self.shape, width).to(device)
        self.judge = Trainee(self.shape, width).to(device).eval()
        self.model.attention("banded")
        self.model.drop(args.dropout)
        self.judge.attention("sdpa")
        self.elapsed, self.step = 0.0, 0
        if args.start_from is not None:
            from transformers import VoxtralRealtimeForConditionalGeneration

            source = VoxtralRealtimeForConditionalGeneration.from_pretrained(
                args.start_from, dtype=torch.float32
            )
            self.model.voxtral.load_state_dict(source.state_dict())
        self.average = Average(self.model)
        self.optimisers = optimisers(self.model, args.lr)
        last = args.out / "last.pt"
        if last.exists():
            state = torch.load(last, map_location=device, weights_only=False)
            self.model.load_state_dict(state["model"])
            self.average.values = state["average"]
            for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
            self.elapsed, self.step = state["elapsed"], state["step"]
        self.schedule = Schedule(args.start_from is not None, args.real)
        self.bpe = Bpe(args.tekken)
        self.filters = mel_filters(device)
        self.sets: dict[str, list[Any]] = {}
        self.began = time.time()

    @property
    def u(self) -> float:
        """Share of the training time that is over; with a deadline the clock runs on when down."""
        spent = self.elapsed + time.time() - self.began
        if self.args.deadline is not None:
            return 1 - max(0.0, self.args.deadline - time.time()) / self.args.seconds
        return spent / self.args.seconds

    def save(self) -> None:
        """Write last.pt and the averaged weights as an exported model."""
        out = self.args.out
        state = {
            "model": self.model.state_dict(),
            "average": self.average.values,
            "step": self.step,
            "optimisers": [o.state_dict() for o in self.optimisers],
            "elapsed": self.u * self.args.seconds,
        }
        torch.save(state, out / "last.tmp")
        (out / "last.tmp").rename(out / "last.pt")
        self.load_judge()
        for name in ("export.new", "export.old"):
            shutil.rmtree(out / name, ignore_errors=True)
        export(self.judge, out / "export.new", self.args.tekken)
        if (out / "export").exists():
            (out / "export").rename(out / "export.old")
        (out / "export.new").rename(out / "export")

    @torch.no_grad()
    def load_judge(self) -> None:
        """Copy the average into the model that is scored."""
        for p, value in zip(self.judge.parameters(), self.average.values, strict=True):
            p.copy_(value)

    def evaluate(self, delay: int = 6) -> None:
        """Score the averaged weights on every test set that is there."""
        if self.args.eval_limit == 0:
            return
        self.load_judge()
        for path in sorted(self.args.sets.iterdir()):
            if path.name not in self.sets and (path / "text.tsv").exists():
                self.sets[path.name] = read_set(path, self.args.eval_limit)
        for name, clips in sorted(self.sets.items()):
            began = time.time()
            line, pairs = score(self.judge, self.filters, self.bpe, clips, delay)
            print(
                f"  {name:20} {delay * 80:5} ms {line} ({time.time() - began:.1f} s)  "
                f"e.g. {pairs[-1][1][:70]!r}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("--data", "--tekken", "--sets", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=840)
    parser.add_argument(
        "--deadline",
        type=float,
        default=None,
        help="Unix time at which the last of --seconds ends, also after a new start",
    )
    parser.add_argument("--save-every", type=float, default=90)
    parser.add_argument("--wait-for", type=int, default=1, help="shards to wait for, a minute")
    parser.add_argument("--start-from", type=Path, default=None)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument(
        "--buckets", default="72x192,72x192,30x448", help="batch x positions, in turn"
    )
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--capacity", type=float, default=8e9, help="samples that the bank holds")
    parser.add_argument("--thin", type=int, default=1, help="of CPUs' shards take one of so many")
    parser.add_argument("--shape", default="{}", help="JSON of common.Shape fields")
    parser.add_argument("--eval-limit", type=int, default=100, help="clips of a set; 0: none")
    parser.add_argument("--eager", action="store_true", help="do not compile the layers")
    parser.add_argument("--teacher", type=Path, default=None, help="what teacher.py wrote")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument(
        "--vocoded", type=float, default=0.25, help="share of clips that a vocoder speaks again"
    )
    parser.add_argument("--real", type=float, default=0.35, help="share of people's voices at last")
    parser.add_argument(
        "--spliced", type=float, default=1.0, help="factor on the shares of spliced sentences"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    group = Group()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.automatic_dynamic_shapes = False
    run = Run(args, group)
    note(
        group,
        f"{sum(p.numel() for p in run.model.voxtral.parameters()) / 1e6:.3f} M parameters; "
        f"at {run.u:.3f}",
    )
    if not args.eager:
        run.model.compile_layers()
    buckets = [Bucket(*map(int, b.split("x"))) for b in args.buckets.split(",")]
    bank = Bank(args.data, int(args.capacity), group.device)
    order = args.out / f"ORDER.{group.rank}"
    feeder = Feeder(args.data, bank, order, group, args.thin)
    came = time.time()
    while not feeder.known or (len(feeder.known) < args.wait_for and time.time() < came + 60):
        feeder.scan()
        time.sleep(1)
    feeder.start()
    clock = multiprocessing.Value("d", run.u)
    seed = (args.seed * 100 + run.step) * 64 + group.rank
    torch.manual_seed(seed)
    plans = Plans(args.data, order, args.tekken, buckets, clock, run.schedule, seed, args.spliced)
    loader = iter(
        torch.utils.data.DataLoader(
            plans,
            batch_size=None,
            num_workers=args.workers,
            prefetch_factor=4 if args.workers else None,
        )
    )
    roughen = Roughen(group.device, max(b.length for b in buckets) * 1_280, seed)
    gen = torch.Generator(device=group.device).manual_seed(seed)
    random.seed(seed)
    train(run, loader, bank, roughen, gen, clock)
    group.close()
    if group.first:
        run.save()
        print(f"exported at step {run.step}", flush=True)
        run.evaluate()
        print(f"done after {run.step} steps", flush=True)


def note(group: Group, line: str) -> None:
    """Print, once for a group."""
    if group.first:
        print(line, flush=True)


def train(
    run: Run, loader: Any, bank: Bank, roughen: Roughen, gen: torch.Generator, clock: Any
) -> None:
    """Steps until the time is over."""
    device, schedule, group = run.device, run.schedule, run.group
    saved = noted = time.time()
    heard, sums = 0.0, torch.zeros(3, device=device)
    count = 0
    params = [p for p in run.model.parameters()]
    while True:
        u = min(1.0, run.u)
        if run.step % AGREE_EVERY == 0 and not group.agree(u < 1):
            break
        clock.value = u
        plan = to_device(next(loader), device)
        with torch.no_grad():
            wave, labels = bank.cut(plan["segments"], plan["tokens"].shape[1] * 1_280)
            strength = schedule.strength(u) * random.random() ** 0.5
            if remade := round(run.args.vocoded * schedule.vocoded(u) * len(wave)):
                wave[:remade] = vocode(wave[:remade], labels[:remade], gen)
            taught = None if run.teacher is None else run.teacher(wave[:, : POSITIONS * 320])
            wave = roughen(wave, plan["samples"], plan["voiced"], strength)
            mel = warp_time(log_mel(wave, run.filters), strength, gen)
            mel = bend_mel(mel, strength, gen)
            mel = mask_mel(mel, strength, gen)
            tokens = forget(plan["tokens"], plan["delays"], schedule.forget(u), gen)
        with torch.autocast(device, torch.bfloat16):
            new_head = run.schedule.warm and run.step < NEW_HEAD_STEPS
            total, *parts = losses(
                run.model, mel, labels, plan, tokens, schedule, u, gen, new_head, taught
            )
        total.backward()
        group.average_gradients(params)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        for optimiser in run.optimisers:
            for settings in optimiser.param_groups:
                settings["lr"] = run.args.lr * schedule.rate(u)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        run.step += 1
        run.average.update(min(0.999, (1 + run.step) / (10 + run.step)))
        if run.step % ALIGN_EVERY == 0:
            group.align(params)
        heard += plan["tokens"].numel() * 0.08
        sums += torch.stack([part.detach() for part in parts])
        count += 1
        now = time.time()
        if now - noted > 15:
            mean = (sums / count).tolist()
            rate = group.size * heard / (time.time() - noted)
            note(
                group,
                f"u {u:.3f} step {run.step} text {mean[0]:.3f} phone {mean[1]:.3f} "
                f"teacher {mean[2]:.3f} "
                f"{rate:.0f} x real time, "
                f"{len(bank.base)} shards {bank.used / 57.6e6:.1f} h",
            )
            noted, heard, count = time.time(), 0.0, 0
            sums.zero_()
        if group.first and now - saved > run.args.save_every:
            run.save()
            run.evaluate()
            saved = noted = time.time()
            heard, count = 0.0, 0
            sums.zero_()


if __name__ == "__main__":
    main()
