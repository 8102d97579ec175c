package main

import (
	"errors"
	"fmt"

	"gatewayd/cmd/gatewayd/internal/admin"
	"gatewayd/cmd/gatewayd/internal/config"
	"gatewayd/cmd/gatewayd/internal/explain"
	"gatewayd/cmd/gatewayd/internal/provision"
	"gatewayd/gateway/routes"
	"gatewayd/plan"
	"gatewayd/plan/provider"
)

// The exit codes. docs/gatewayd.8 lists them.
const (
	exitOK         = 0
	exitFailed     = 1 // what was asked for could not be done
	exitUsage      = 2 // the command line is wrong
	exitRefused    = 3 // the configuration or a manifest is refused
	exitNotRunning = 4 // no daemon answers
	exitDenied     = 5 // explain: the answer is deny; scan: the body is refused

	exitInterrupted = 130 // vm run: a signal came, as shells say it of SIGINT
)

// exitError carries an exit code. A nil err means that all there was to say has been said.
type exitError struct {
	code int
	err  error
}

// Error is that of the cause.
func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

// Unwrap gives the cause.
func (e *exitError) Unwrap() error { return e.err }

// usagef makes an error about the command line.
func usagef(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// exitCode judges an error by its type.
func exitCode(err error) int {
	var exit *exitError
	var target *explain.TargetError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &target):
		return exitUsage
	case refused(err):
		return exitRefused
	case is[*admin.NotRunningError](err):
		return exitNotRunning
	default:
		return exitFailed
	}
}

// refused tells whether err is about what somebody wrote in a file.
func refused(err error) bool {
	return is[*config.Error](err) || is[*plan.ManifestError](err) || is[*routes.ConflictError](err) ||
		is[*provider.ModeError](err) || is[*provision.UnknownBottleError](err)
}

// is tells whether some error in err's tree is a T.
func is[T error](err error) bool {
	var t T
	return errors.As(err, &t)
}
