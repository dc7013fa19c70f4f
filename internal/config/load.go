package config

import (
	"fmt"
	"os"
)

// DefaultPath is where the configuration is looked for last.
const DefaultPath = "/etc/walpost/walpost.yaml"

// PathVariable names the environment variable that may hold the file's path.
const PathVariable = "WALPOST_CONFIG"

// ResolvePath decides which file to load: the one the command line names, else
// WALPOST_CONFIG's, else DefaultPath.
func ResolvePath(flag string, environ Environ) string {
	if flag != "" {
		return flag
	}
	if path, ok := environ(PathVariable); ok && path != "" {
		return path
	}
	return DefaultPath
}

// Load reads and checks a configuration file. environ serves `${VAR}` now and
// `{env: NAME}` secrets later. The error is Problems if the file could be read;
// like any error of this package it shows no secret.
func Load(path string, environ func(string) (string, bool)) (*Config, error) {
	raw, err := os.ReadFile(path) // #nosec G304 -- the operator names the file
	if err != nil {
		return nil, &readError{fmt.Errorf("read configuration: %w", err)}
	}
	return Parse(path, raw, environ)
}

// Parse is Load for a file that was read already; name stands in messages.
func Parse(name string, raw []byte, environ func(string) (string, bool)) (*Config, error) {
	c := &checker{file: name, keys: keys(environ), places: map[string]position{}}
	t := &tree{environ: environ, report: c.report}
	root, ok := t.parse(raw)
	if ok {
		c.section(root, "")
	}
	if ok && root.kind == mapping {
		c.complete()
	}
	if len(c.problems) == 0 {
		c.whole()
	}
	if len(c.problems) > 0 {
		c.problems.sortByPosition()
		return nil, c.problems
	}
	return &c.config, nil
}

type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }
func (e *readError) ExitCode() int { return exitUsage }
func (e *readError) Remedy() string {
	return "name the file with -c FILE or " + PathVariable + "; examples/walpost.yaml is one to start from"
}
