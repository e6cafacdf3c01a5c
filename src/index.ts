/** The library's public face. */
export { ControlClient } from './cli/control-client.js';
export { MirrorError } from './core/errors.js';
export { GuestClient, type GuestVerdict } from './drill/guest-client.js';
export { Daemon } from './host/daemon.js';
export { ControlServer } from './host/control-server.js';
export { parseVmConfig, type VmConfig } from './host/vm-config.js';
export type { VmStatus } from './host/vm-status.js';
export { WitnessServer } from './pool/witness-server.js';
