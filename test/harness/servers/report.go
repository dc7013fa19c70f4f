package servers

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// report appends a line to the report file, where one is asked for. Several
// processes append to it; a line is one write.
func report(mode Mode, server *Server) error {
	path := os.Getenv(EnvReport)
	if path == "" {
		return nil
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // named by whoever runs the tests
	if err != nil {
		return fmt.Errorf("report a started server: %w", err)
	}
	_, err = fmt.Fprintf(file, "%s %s %s\n", mode, server.name, server.Version)
	return errors.Join(err, file.Close())
}

// CheckReport reads a report and fails unless servers were started, both kinds,
// and all of them in the given mode. It returns what was started.
func CheckReport(text string, want Mode) (string, error) {
	counts := map[string]int{}
	var order []string
	for line := range strings.Lines(text) {
		mode, server, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || Mode(mode) != want {
			return "", fmt.Errorf("the tests were meant to run on %s but report %q", want, strings.TrimSpace(line))
		}
		if counts[server] == 0 {
			order = append(order, server)
		}
		counts[server]++
	}
	for _, kind := range []string{namePostgres, nameKafka} {
		if !strings.Contains(text, " "+kind+" ") {
			return "", fmt.Errorf("the tests were meant to run on %s but started no %s: they did not run", want, kind)
		}
	}
	parts := make([]string, len(order))
	for i, server := range order {
		parts[i] = fmt.Sprintf("%d × %s", counts[server], server)
	}
	return fmt.Sprintf("servers started (%s): %s", want, strings.Join(parts, ", ")), nil
}
