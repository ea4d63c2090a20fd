"""Settings that all runs share: registration, hooks, logging and seeds.

A child config that sets `custom_imports.imports` replaces the list below, and must repeat
'mixdet.plugin' in its own. MixDet's hooks are in the dict `default_hooks`, because mmengine merges it
with the `default_hooks` of a child config. The list `custom_hooks` is left to the user, because a child
config would replace it. MixDet's tools remove a hook that is set to None, as in
`--cfg-options default_hooks.fuse=None`. mmdet's tools can remove only mmengine's hooks that way.
"""

default_scope = "mmdet"
custom_imports = dict(imports=["mixdet.plugin"], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(
        type="SafeCheckpointHook",  # leaves no broken checkpoint when a run is killed
        interval=1,
        max_keep_ckpts=3,
        save_best="coco/bbox_mAP",
        rule="greater",
    ),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    seed_iteration=dict(type="SeedIterationHook"),  # a resumed run draws the same random numbers
    checkpoint_fit=dict(type="CheckpointFitHook"),  # refuses a checkpoint of another network
    data_check=dict(
        type="DataCheckHook"
    ),  # finds misspelled classes and unusable boxes before training
    finite_loss=dict(type="FiniteLossHook"),  # stops the run at the first NaN
    sync_buffers=dict(type="SyncBuffersHook"),  # averages batch norm statistics before validation
    # refuses a monitored metric that does not exist, and a schedule that has no effect
    settings_check=dict(type="SettingsCheckHook"),
    total_batch=dict(type="TotalBatchHook"),  # warns if the total batch is not base_batch_size
    interrupt=dict(type="InterruptHook"),  # on Ctrl-C, writes a checkpoint to resume from
    fuse=dict(type="FuseHook"),  # fuses the network, for faster tests with the same results
    keep_memory=dict(type="KeepMemoryHook"),  # on a CPU, new tensors reuse the memory of freed ones
    report=dict(type="ReportHook"),  # writes the scores and the contact sheet at the end
    progress=dict(
        type="ProgressHook"
    ),  # logs the time left, compares validations, draws progress.png
    visualization=dict(type="DetVisualizationHook"),
)

env_cfg = dict(
    cudnn_benchmark=True,  # pays off since all inputs have the same size
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
randomness = dict(seed=0)

vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(type="DetLocalVisualizer", vis_backends=vis_backends, name="visualizer")
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=True)
log_level = "INFO"
load_from = None
resume = False
