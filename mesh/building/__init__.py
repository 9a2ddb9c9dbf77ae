"""Arguments → one of Istio's resources as a plain dict, one file per resource.

Every function checks its arguments as early as it can and raises ValueError, which names the argument and says what is
allowed. What it returns is valid by Istio's schema and by the rules of Istio's own validation, holds dicts, lists,
strings, numbers and booleans alone, and shares no part with the arguments nor with any other result.
"""
