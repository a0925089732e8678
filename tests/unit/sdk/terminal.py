"""A terminal in memory: what a person sees after all that was written to it."""

from __future__ import annotations

import io
import re

_TOKENS = re.compile(r"\x1b\[(?P<numbers>[?\d;]*)(?P<verb>[A-Za-z])|(?P<control>[\r\n])|(?P<text>[^\x1b\r\n]+)")


class Terminal(io.StringIO):
    """Understands what rich writes: colours (which it forgets), lines up, and erased lines."""

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> list[str]:
        """The lines that are to be seen, without empty ones at the end."""
        lines, row, column = [""], 0, 0
        for token in _TOKENS.finditer(self.getvalue()):
            if token["text"]:
                line = lines[row].ljust(column)
                lines[row] = line[:column] + token["text"] + line[column + len(token["text"]) :]
                column += len(token["text"])
            elif token["control"] == "\r":
                column = 0
            elif token["control"] == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif token["verb"] == "A":
                row -= int(token["numbers"] or 1)
            elif token["verb"] == "K":
                lines[row] = ""
        while lines and not lines[-1].strip():
            lines.pop()
        return [line.rstrip() for line in lines]

    @property
    def coloured(self) -> bool:
        """Whether a colour was ever chosen."""
        styles = re.findall(r"\x1b\[([\d;]+)m", self.getvalue())
        return any(30 <= int(n) <= 107 for style in styles for n in style.split(";"))
