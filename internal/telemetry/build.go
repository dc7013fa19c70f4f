package telemetry

import (
	"runtime"
	"runtime/debug"
)

// BuildInfo says which walpost this is.
type BuildInfo struct {
	Version   string `json:"version"`  // module version, "(devel)" for a build of a work tree without one
	Revision  string `json:"revision"` // commit, "-dirty" behind it if files were changed; "unknown"
	GoVersion string `json:"go_version"`
}

// ReadBuild takes the facts that the Go toolchain put into the binary.
func ReadBuild() BuildInfo {
	b := BuildInfo{Version: "(devel)", Revision: "unknown", GoVersion: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	modified := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				modified = "-dirty"
			}
		}
	}
	b.Revision += modified
	return b
}
