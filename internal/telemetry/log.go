package telemetry

import (
	"io"
	"log/slog"
	"os"
)

// NewLogger returns a logger that writes to w. level is debug, info, warn or
// error; format is text, json or auto, which is text on a terminal and JSON
// otherwise. Anything else is info and auto: the configuration is checked
// where it is read.
//
// Records have the keys time, level and msg before their own.
func NewLogger(w io.Writer, level, format string, isTerminal bool) *slog.Logger {
	options := &slog.HandlerOptions{Level: parseLevel(level)}
	if format == "text" || format != "json" && isTerminal {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

func parseLevel(level string) slog.Level {
	switch level {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// IsTerminal reports whether f is a character device, as a terminal is.
func IsTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
