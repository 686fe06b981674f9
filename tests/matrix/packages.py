"""Loops that other packages run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests.matrix.language import bert
from tests.matrix.row import Row
from tests.matrix.session import Session
from tests.matrix.training import CLASSES, mlp, sgd, vectors


def _data(count: int = 48) -> TensorDataset:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(count, 6, generator=draw)
    return TensorDataset(x, torch.randint(0, CLASSES, (count,), generator=draw))


def _same(one: nn.Module, state: dict[str, Tensor]) -> None:
    """Check that a module has a state; NaN stands for a function of the step."""
    torch.testing.assert_close(one.state_dict(), state, rtol=0, atol=0, equal_nan=True)


def _fit(session: Session, until: int, resume: Path | None = None, **options: Any) -> Any:
    """Train a module of Lightning for some steps of the optimizer."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = mlp()
            self.net = session.wrap(self.network)

        def training_step(self, batch: Any, index: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9)

    torch.manual_seed(1)
    module = Module()
    trainer = lightning.Trainer(
        max_steps=until, accelerator="cpu", logger=False, enable_progress_bar=False,
        default_root_dir=session.folder, enable_model_summary=False,
        enable_checkpointing=False, **options,
    )  # fmt: skip
    trainer.fit(module, DataLoader(_data(), 8), ckpt_path=resume, weights_only=True)
    module.trainer = None
    return module, trainer


def _lightning(session: Session) -> None:
    _fit(session, 4)


def _lightning_accumulates(session: Session) -> None:
    _fit(session, 3, gradient_clip_val=0.5, accumulate_grad_batches=2)


def _lightning_resumes(session: Session) -> None:
    import lightning

    class Save(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 6:
                trainer.save_checkpoint(session.folder / "middle.ckpt")

    whole = _fit(session, 12, callbacks=[Save()])[0]
    resumed = _fit(session, 12, session.folder / "middle.ckpt")[0]
    _same(resumed.net, whole.net.state_dict())


def _accelerate(precision: str) -> Any:
    def run(session: Session) -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(True)
        accelerator = Accelerator(cpu=True, mixed_precision=precision)
        network = mlp()
        opt = sgd(network)
        net = session.wrap(network, opt)
        net, opt, loader = accelerator.prepare(net, opt, DataLoader(_data(), 8))
        for index, (x, y) in enumerate(loader):
            opt.zero_grad()
            accelerator.backward(F.cross_entropy(net(x), y))
            accelerator.clip_grad_norm_(net.parameters(), 1.0)
            opt.step()
            if index == 3:
                accelerator.save_state(str(session.folder / "accelerate"))
                before = copy.deepcopy(net.state_dict())
        accelerator.load_state(str(session.folder / "accelerate"))
        _same(net, before)
        accelerator.unwrap_model(net, keep_fp32_wrapper=False)

    return run


class _Sentences(Dataset[dict[str, Tensor]]):
    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self._tokens = torch.randint(0, 20, (48, 6), generator=draw)

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tokens = self._tokens[index]
        return {"input_ids": tokens, "labels": tokens.sum() % CLASSES}


def _trainer(session: Session, until: int, folder: Path, **options: Any) -> Any:
    from transformers import Trainer, TrainingArguments

    torch.manual_seed(1)
    net = session.wrap(bert())
    arguments = TrainingArguments(
        str(folder), max_steps=until, per_device_train_batch_size=8, report_to=[], use_cpu=True,
        seed=0, disable_tqdm=True, logging_strategy="no", learning_rate=0.01,
        label_names=["labels"], **options,
    )  # fmt: skip
    data = _Sentences()
    return net, Trainer(model=net, args=arguments, train_dataset=data, eval_dataset=data)


def _hf_trainer(session: Session) -> None:
    options = {"save_strategy": "no", "gradient_accumulation_steps": 2, "max_grad_norm": 0.5}
    _, trainer = _trainer(session, 3, session.folder, **options)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0


def _hf_trainer_resumes(session: Session) -> None:
    saving = {"save_strategy": "steps", "save_steps": 4}
    whole, trainer = _trainer(session, 8, session.folder, **saving)
    trainer.train()
    resumed, trainer = _trainer(session, 8, session.folder, **saving)
    trainer.train(resume_from_checkpoint=str(session.folder / "checkpoint-4"))
    _same(resumed, whole.state_dict())


def _timm_ema(session: Session) -> None:
    from timm.utils import ModelEmaV3

    network = mlp()
    opt = sgd(network)
    net = session.wrap(network, opt)
    mean = ModelEmaV3(net, decay=0.5)
    for _ in range(4):
        (x,), _, y = vectors()()
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
        mean.update(net)
    mean.load_state_dict(copy.deepcopy(mean.state_dict()))
    assert mean.module.eval()(x).isfinite().all()


def _safetensors(session: Session) -> None:
    from safetensors.torch import load_file, save_file

    network = mlp()
    opt = sgd(network)
    net = session.wrap(network, opt)
    for index in range(4):
        if index == 2:
            save_file(net.state_dict(), session.folder / "net.safetensors")
            net.load_state_dict(load_file(session.folder / "net.safetensors"))
        (x,), _, y = vectors()()
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()


TRAINER = ("transformers", "accelerate")

ROWS = [
    Row("Lightning", _lightning, needs=("lightning",)),
    Row("Lightning, clipping and accumulation", _lightning_accumulates, needs=("lightning",)),
    Row("Lightning, resumed from a checkpoint", _lightning_resumes, needs=("lightning",)),
    Row("Accelerate", _accelerate("no"), needs=("accelerate",)),
    Row("Accelerate, bfloat16", _accelerate("bf16"), needs=("accelerate",)),
    Row("transformers `Trainer`", _hf_trainer, needs=TRAINER),
    Row("transformers `Trainer`, resumed", _hf_trainer_resumes, needs=TRAINER),
    Row("timm `ModelEmaV3`", _timm_ema, needs=("timm",)),
    Row("safetensors", _safetensors, needs=("safetensors",)),
]
