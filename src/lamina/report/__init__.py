"""What is shown of architectures: the words for their parts, tables and fact sheets. Imports no torch.

Mechanisms and encoders register their words with `words` by being imported, which happens here.
"""

from lamina.report import cells as cells
from lamina.report import encoders as encoders
from lamina.report import mechanisms as mechanisms
from lamina.report import shared as shared
