"""How a colour looks to a colour-blind reader, and how far apart two colours are."""

from __future__ import annotations

import numpy as np

# Machado GM, Oliveira MM, Fernandes LAF (2009) A physiologically-based model for simulation of
# color vision deficiency. IEEE Trans Vis Comput Graph 15:1291-1298, Table 1, severity 1.0; for
# linear RGB.
MACHADO = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
# IEC 61966-2-1, D65.
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]]
)  # fmt: skip


def linear(rgb: np.ndarray) -> np.ndarray:
    """sRGB (..., 3) to linear RGB."""
    rgb = np.asarray(rgb, float)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def seen(rgb: np.ndarray, deficiency: str | None) -> np.ndarray:
    """Linear RGB (..., 3) of sRGB as a reader with the deficiency sees it."""
    light = linear(rgb)
    return light if deficiency is None else np.clip(light @ np.array(MACHADO[deficiency]).T, 0, 1)


def lab(light: np.ndarray) -> np.ndarray:
    """Linear RGB (..., 3) to CIELAB."""
    xyz = light @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Relative luminance as WCAG has it."""
    return linear(rgb) @ TO_XYZ[1]


def contrast(a: np.ndarray, b: np.ndarray) -> float:
    """Contrast ratio of WCAG 2."""
    high, low = sorted((float(luminance(a)), float(luminance(b))), reverse=True)
    return (high + 0.05) / (low + 0.05)


def ciede2000(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """CIEDE2000 between CIELAB colours (..., 3).

    Sharma G, Wu W, Dalal EN (2005) The CIEDE2000 color-difference formula. Color Res Appl 30:21-30.
    """
    one, two = np.broadcast_arrays(np.asarray(one, float), np.asarray(two, float))
    mean_c = (np.hypot(*one.T[1:]) + np.hypot(*two.T[1:])).T / 2
    g = 0.5 * (1 - np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7)))
    a1, a2 = (1 + g) * one[..., 1], (1 + g) * two[..., 1]
    c1, c2 = np.hypot(a1, one[..., 2]), np.hypot(a2, two[..., 2])
    h1, h2 = (np.degrees(np.arctan2(lab[..., 2], a)) % 360 for lab, a in ((one, a1), (two, a2)))
    dh = (h2 - h1 + 180) % 360 - 180
    dh = np.where(c1 * c2 == 0, 0, dh)
    dl, dc = two[..., 0] - one[..., 0], c2 - c1
    dbig = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(dh / 2))
    l_mean, c_mean = (one[..., 0] + two[..., 0]) / 2, (c1 + c2) / 2
    far = np.abs(h1 - h2) > 180
    h_mean = np.where(far, (h1 + h2 + np.where(h1 + h2 < 360, 360, -360)) / 2, (h1 + h2) / 2)
    h_mean = np.where(c1 * c2 == 0, h1 + h2, h_mean)
    t = (
        1 - 0.17 * np.cos(np.radians(h_mean - 30)) + 0.24 * np.cos(np.radians(2 * h_mean))
        + 0.32 * np.cos(np.radians(3 * h_mean + 6)) - 0.20 * np.cos(np.radians(4 * h_mean - 63))
    )  # fmt: skip
    turn = 30 * np.exp(-(((h_mean - 275) / 25) ** 2))
    r_c = 2 * np.sqrt(c_mean**7 / (c_mean**7 + 25.0**7))
    s_l = 1 + 0.015 * (l_mean - 50) ** 2 / np.sqrt(20 + (l_mean - 50) ** 2)
    s_c, s_h = 1 + 0.045 * c_mean, 1 + 0.015 * c_mean * t
    r_t = -np.sin(np.radians(2 * turn)) * r_c
    return np.sqrt(
        (dl / s_l) ** 2 + (dc / s_c) ** 2 + (dbig / s_h) ** 2 + r_t * (dc / s_c) * (dbig / s_h)
    )
