/** Seeds that once failed, run again every time. */
export const FAILED_SEEDS: readonly number[] = [
  207800085, 207800435, 207800539, 207800673, 207800795, 207800820, 207800835, 207800891, 207801089,
  207801354,
];
