"""### DeepSpeed: a small GPT, by ZeRO-2 and by ZeRO-3

Two workers train a GPT of 137,216 parameters on scikit-learn's documentation and code, byte by byte, and let it write.
One task splits the gradients and the optimizer's state among the ranks (ZeRO-2), the other one also the parameters
(ZeRO-3). That only changes the memory that a rank needs, so the last task fails where the two do not learn the same.
Keep the first one that your model fits in. The workers' Python needs DeepSpeed and scikit-learn.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, task

from practicus_provider.operators.deepspeed import PracticusDeepSpeedOperator
from practicus_provider.spec import Resources

with DAG(
    "practicus_training_gpt",
    schedule=None,
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    doc_md=__doc__,
    tags=["practicus", "deepspeed", "machine-learning"],
    params={
        "epochs": Param(20, type="integer", minimum=1, maximum=1000, title="Epochs"),
        "kilobytes": Param(97, type="integer", minimum=10, maximum=97, title="Kilobytes of the text to learn from"),
        "start": Param("The data", type="string", minLength=1, title="What the text that it writes begins with"),
    },
):

    def train(stage: int) -> PracticusDeepSpeedOperator:
        return PracticusDeepSpeedOperator(
            task_id=f"zero{stage}",
            application="jobs/gpt.py",
            application_args=[
                *("--epochs", "{{ params.epochs }}"),
                *("--kilobytes", "{{ params.kilobytes }}"),
                *("--start", "{{ params.start }}"),
            ],
            ds_config={
                "train_batch_size": 64,
                "optimizer": {"type": "AdamW", "params": {"lr": 0.003, "torch_adam": True}},
                "gradient_clipping": 1.0,
                "zero_optimization": {"stage": stage},
            },
            workers=2,
            worker_resources=Resources(cpu=1, memory="2Gi"),
        )

    @task
    def judge(zero2: dict, zero3: dict) -> str:
        """Fail unless both have learned, and the same."""
        for second, third in zip(zero2["losses"], zero3["losses"], strict=True):
            if abs(second - third) > 0.001:
                raise ValueError(f"ZeRO-2 and ZeRO-3 do not lose the same: {zero2}, {zero3}")
        if len(zero3["losses"]) > 1 and zero3["losses"][-1] >= zero3["losses"][0]:
            raise ValueError(f"it has learned nothing: {zero3}")
        kept, parameters = zero3["kept_by_rank"], zero3["parameters"]
        return f"loss {zero3['losses'][-1]}; of {parameters:,} parameters a rank keeps {kept:,}"

    judge(train(2).output, train(3).output)
