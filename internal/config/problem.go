package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// exitUsage is the exit code of a command that could not begin.
const exitUsage = 2

// Problem is one thing that is wrong with a configuration file.
type Problem struct {
	File         string
	Line, Column int    // 1-based; 0: it stands nowhere, something is missing
	Path         string // such as kafka.topics.partitions; "" for the file itself
	Message      string // what was found and what is accepted; no secret
}

func (p Problem) String() string {
	where := p.File
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	}
	if p.Path == "" {
		return where + ": " + p.Message
	}
	return where + ": " + p.Path + ": " + p.Message
}

// Problems is everything that is wrong with a configuration file, in the
// file's order.
type Problems []Problem

func (ps Problems) Error() string {
	if len(ps) == 1 {
		return ps[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d problems in the configuration:", len(ps))
	for _, p := range ps {
		b.WriteString("\n  " + p.String())
	}
	return b.String()
}

// ExitCode is that of a configuration error.
func (ps Problems) ExitCode() int { return exitUsage }

// Remedy is what an operator can do.
func (ps Problems) Remedy() string {
	return "correct the configuration; docs/configuration.md lists every key, and `walpost validate` checks a file"
}

// sortByPosition puts what stands nowhere last.
func (ps Problems) sortByPosition() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if (a.Line == 0) != (b.Line == 0) {
			return cmp.Compare(b.Line, a.Line)
		}
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
