package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// checker fills a Config from a file's tree and notes every problem.
type checker struct {
	file     string
	keys     []key
	config   Config
	places   map[string]position // of the keys the file has
	problems Problems
}

func (c *checker) report(pos position, path, message string) {
	c.problems = append(c.problems, Problem{File: c.file, Line: pos.line, Column: pos.column, Path: path, Message: message})
}

// section checks the mapping at path, "" for the whole file, and everything
// below it.
func (c *checker) section(v value, path string) {
	switch v.kind {
	case broken, null: // a section whose keys are all commented out
		return
	case mapping:
	default:
		c.report(v.pos, path, fmt.Sprintf("found %s; accepted: a mapping with %s", v.describe(true), strings.Join(c.children(path), ", ")))
		return
	}
	seen := map[string]position{}
	for _, f := range v.fields {
		full := join(path, f.name)
		if before, twice := seen[f.name]; twice {
			c.report(f.pos, full, fmt.Sprintf("found a second time; accepted: once (the first is on line %d)", before.line))
			continue
		}
		seen[f.name] = f.pos
		c.field(f, path, full)
	}
}

func (c *checker) field(f field, parent, full string) {
	k, isKey := c.key(full)
	switch {
	case isKey:
		c.places[full] = f.pos
		c.leaf(k, f.value)
	case len(c.children(full)) > 0:
		c.section(f.value, full)
	case slices.Contains(laterKeys(), full):
		c.report(f.pos, full, "comes with a later version of walpost; accepted here: "+strings.Join(c.children(parent), ", "))
	default:
		c.report(f.pos, full, "unknown key"+c.hint(parent, f.name)+"; accepted here: "+strings.Join(c.children(parent), ", "))
	}
}

func (c *checker) leaf(k key, v value) {
	if v.kind == broken {
		return
	}
	if twice := repeated(v); twice != nil {
		c.report(twice.pos, k.path, "found a name for the second time; accepted: once each")
		return
	}
	refused := k.set(&c.config, v)
	if refused == nil || refused.kind == broken {
		return
	}
	reason := ""
	if refused.reason != "" {
		reason = " (" + refused.reason + ")"
	}
	if refused.pos == (position{}) {
		refused.pos = c.places[k.path]
	}
	c.report(refused.pos, k.path+refused.suffix, fmt.Sprintf("found %s%s; accepted: %s", refused.describe(k.hidden), reason, k.accepts))
}

// repeated is the first field of a mapping whose name came before.
func repeated(v value) *field {
	seen := map[string]bool{}
	for i, f := range v.fields {
		if seen[f.name] {
			return &v.fields[i]
		}
		seen[f.name] = true
	}
	return nil
}

// complete gives every key that the file does not have its default.
func (c *checker) complete() {
	for _, k := range c.keys {
		_, present := c.places[k.path]
		switch {
		case present:
		case k.required:
			c.report(position{}, k.path, "is missing; accepted: "+k.accepts)
		case k.def != "" && k.def != "{}":
			c.applyDefault(k)
		}
	}
}

// applyDefault reads the default as if it stood in the file. One that is made
// of the pipeline's name is refused only if that name was, and that is
// reported already.
func (c *checker) applyDefault(k key) {
	pipeline := c.config.Pipeline
	def := strings.ReplaceAll(k.def, "<pipeline>", pipeline)
	def = strings.ReplaceAll(def, "<pipeline_>", strings.ReplaceAll(pipeline, "-", "_"))
	_ = k.set(&c.config, scalar(def))
}

// whole checks what no key can know alone. It wants a Config without problems.
func (c *checker) whole() {
	cfg := &c.config
	if cfg.Limits.MaxInFlightBytes < cfg.Kafka.MaxMessageBytes {
		c.relation("limits.max_in_flight_bytes", "kafka.max_message_bytes", fmt.Sprintf("found %s, less than kafka.max_message_bytes (%s): the largest event could never be sent; accepted: at least as much",
			formatSize(int64(cfg.Limits.MaxInFlightBytes)), formatSize(int64(cfg.Kafka.MaxMessageBytes))))
	}
	if cfg.Kafka.Checkpoint.Topic == cfg.Outbox.Topic {
		c.relation("kafka.checkpoint.topic", "outbox.topic", fmt.Sprintf("found %q, which is also outbox.topic; accepted: a topic of its own", cfg.Outbox.Topic))
	}
	c.distinctColumns()
}

// relation reports what is wrong between two keys at the place of the first,
// or of the second if the file has only that.
func (c *checker) relation(path, other, message string) {
	pos, ok := c.places[path]
	if !ok {
		pos = c.places[other]
	}
	c.report(pos, path, message)
}

func (c *checker) distinctColumns() {
	columns := c.config.Outbox.Columns
	named := map[string]string{}
	for _, column := range []struct{ key, name string }{
		{"id", columns.ID},
		{"aggregate_type", columns.AggregateType},
		{"aggregate_id", columns.AggregateID},
		{"type", columns.Type},
		{"payload", columns.Payload},
	} {
		path := "outbox.columns." + column.key
		if before, twice := named[column.name]; twice {
			c.relation(path, before, fmt.Sprintf("found %q, which is also %s; accepted: a column of its own", column.name, before))
			continue
		}
		named[column.name] = path
	}
}

func (c *checker) key(path string) (key, bool) {
	i := slices.IndexFunc(c.keys, func(k key) bool { return k.path == path })
	if i < 0 {
		return key{}, false
	}
	return c.keys[i], true
}

// children are the names that may stand in the section at path, sorted; none
// if it is no section.
func (c *checker) children(path string) []string {
	names := map[string]bool{}
	for _, k := range c.keys {
		rest, below := k.path, path == ""
		if !below {
			rest, below = strings.CutPrefix(k.path, path+".")
		}
		if below {
			name, _, _ := strings.Cut(rest, ".")
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// hint names the key that an unknown one was probably meant to be: one spelt
// alike in its section, or the same name in another.
func (c *checker) hint(parent, name string) string {
	best, distance := "", 1+max(1, len(name)/3)
	for _, child := range c.children(parent) {
		if d := editDistance(strings.ToLower(name), child); d < distance {
			best, distance = child, d
		}
	}
	for _, k := range c.keys {
		if best == "" && strings.HasSuffix("."+k.path, "."+name) {
			best = k.path
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
