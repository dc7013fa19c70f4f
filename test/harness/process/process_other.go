//go:build !linux

package process

import "syscall"

func setDeathSignal(*syscall.SysProcAttr, syscall.Signal) {}

func descendants(int) []int { return nil }

func killUsers(string) {}

func running(int) bool { return false }
