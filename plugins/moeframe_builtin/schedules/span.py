"""The settings shared by schedules that state their range in log-SNR."""

import math
from typing import Any

from pydantic import Field, field_validator

from moeframe.interfaces.schedule import NoiseSchedule


class Span(NoiseSchedule.Config):
    """The noisiest and the cleanest log-SNR."""

    log_snr_min: float = Field(default=-10.0, ge=-30, le=30, description="log-SNR at t = 1, the noisiest")
    log_snr_max: float = Field(
        default=10.0, ge=-30, le=30, validate_default=True, description="log-SNR at t = 0, the cleanest"
    )

    @field_validator("log_snr_max")
    @classmethod
    def _ordered(cls, value: float, info: Any) -> float:
        low = info.data.get("log_snr_min", -math.inf)
        if low >= value:
            raise ValueError(f"log_snr_min {low:g} must be below log_snr_max {value:g}")
        return value
