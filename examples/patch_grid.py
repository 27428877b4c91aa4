"""Where does the model keep that it was asked about France? Put single values of one run into another.

python examples/patch_grid.py [FOLDER]
"""

import sys

import pellucid

subject = pellucid.load("zoo:tiny-lm")
clean, corrupt = "The capital of France is", "The capital of Italy is"
grid = pellucid.run("activation_patching", subject, clean, corrupt=corrupt, target=" Paris", contrast=" Rome")
grid.show()
grid.html(f"{sys.argv[1] if len(sys.argv) > 1 else 'out'}/patch_grid.html")
