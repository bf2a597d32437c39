"""Numbers of metafor 3.8-1 (Debian's r-cran-metafor, R 4.2.2) on metansue's complete example.

Made by the script below; `threshold` makes REML converge to the last digits.
"""

from __future__ import annotations

SCRIPT = r"""
library(metafor)
n <- c(40, 20, 22, 24, 18, 30, 25, 30, 16, 22)
t <- c(3.4, 1, .2, -.5, 3.2, 2.8, 2.1, 3.1, 2, 3.4)
df <- n - 1
J <- exp(lgamma(df / 2) - lgamma((df - 1) / 2)) / sqrt(df / 2)
y <- J * t / sqrt(n)
v <- 1 / n + (1 - (df - 2) / (df * J^2)) * y^2
show <- function(name, ...) cat(name, formatC(c(...), digits = 12, format = "g"), "\n")
fine <- list(threshold = 1e-14, maxiter = 1000)
for (method in c("DL", "REML")) {
  fit <- rma(y, v, method = method, control = fine)
  student <- rma(y, v, method = method, test = "t", control = fine)
  p <- predict(student, pi.type = "riley")  # t with k - 2 degrees of freedom
  show(paste("interval", method), fit$beta, fit$se, fit$tau2, p$pi.lb, p$pi.ub)
  l <- leave1out(fit)
  show(paste("leave1out estimate", method), l$estimate)
  show(paste("leave1out zval", method), l$zval)
  show(paste("leave1out tau2", method), l$tau2)
}
for (predictor in c("sei", "sqrtninv")) {
  r <- regtest(rma(y, v, ni = n, control = fine), model = "rma", predictor = predictor)
  show(paste("regtest", predictor), r$zval, r$pval, r$fit$beta, r$fit$se, r$fit$tau2)
}
for (test in c("chi2", "binom", "exact")) {
  r <- tes(y, v, test = test, alternative = "greater", theta = .35, alpha = .05)
  show(paste("tes", test), r$O, r$E, r$pval, if (test == "chi2") r$X2)
}
show("power", r$power)
show("significant", which(r$sig))
"""

T = (3.4, 1, 0.2, -0.5, 3.2, 2.8, 2.1, 3.1, 2, 3.4)
N = (40, 20, 22, 24, 18, 30, 25, 30, 16, 22)

# estimate, se, tau2, limits of the 95 % prediction interval
INTERVAL = {
    "dl": (0.393286943241, 0.0844382326467, 0.024698691313, -0.0181167741959, 0.804690660678),
    "reml": (0.393301742267, 0.0845669063531, 0.0249095880375, -0.019602768773, 0.806206253307),
}
LEFT_OUT = {
    "g": {
        "dl": (
            0.373767078398, 0.412244185782, 0.432342954079, 0.451718421306, 0.367463536802,
            0.380602397383, 0.392422385105, 0.373899810474, 0.38708839422, 0.364526911567,
        ),
        "reml": (
            0.373851578657, 0.412284107359, 0.432385221632, 0.451718421306, 0.367443070997,
            0.380647744783, 0.392459184718, 0.373929934873, 0.38706435826, 0.364526328088,
        ),
    },
    "z": {
        "dl": (
            3.94928499892, 4.49827525764, 5.17898990539, 6.32915738916, 4.22873533518,
            4.02895056543, 4.13878303192, 4.02557477942, 4.20034011227, 4.18170635645,
        ),
        "reml": (
            3.93698695564, 4.48642610308, 5.15996631556, 6.32915738916, 4.21369904856,
            4.01727315236, 4.12642673323, 4.01810078105, 4.21365190959, 4.1734013116,
        ),
    },
    "tau2": {
        "dl": (
            0.0311278503471, 0.029332451587, 0.0163260129782, 0, 0.0234446964353,
            0.0323645167696, 0.0336968369871, 0.0299073117861, 0.031639660527, 0.0229332010039,
        ),
        "reml": (
            0.0316587283046, 0.0297349992905, 0.0167815474746, 0, 0.0239112146548,
            0.0328385546607, 0.0341840383641, 0.0302004036936, 0.0311582021258, 0.0231968073579,
        ),
    },
}  # fmt: skip
# z, p, intercept, slope, their standard errors, tau2
REGTEST = {
    "se": (
        0.54191500072, 0.587877062405, 0.0394015212858, 1.65317427442, 0.660269803438,
        3.05061545117, 0.0335282956637,
    ),
    "inverse-root-n": (
        -0.347001675562, 0.728590059979, 0.634196621163, -1.18854615162, 0.698557166784,
        3.42518850866, 0.0312344279386,
    ),
}  # fmt: skip
OBSERVED, EXPECTED = 7, 4.92994640219
P_EXACT, P_BINOMIAL, CHI2 = 0.156444935274, 0.160623310267, 1.7143852934
POWER = (
    0.662778680856, 0.460138019207, 0.498404521502, 0.525950847798, 0.364860987914,
    0.560978248092, 0.511615982561, 0.551546173746, 0.370243514599, 0.423429425917,
)  # fmt: skip
SIGNIFICANT = (1, 5, 6, 7, 8, 9, 10)
