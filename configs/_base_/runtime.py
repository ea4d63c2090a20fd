"""What every run shares: registration, hooks, logging, seeds.

A child config that sets `custom_imports.imports` replaces this list: repeat 'mixdet.plugin' there.
Hooks of ours stand in `default_hooks`, a dict that merges; `custom_hooks`, a list, is the user's.
None leaves one out, in our tools (mmengine's own take it for mmengine's hooks alone):
`--cfg-options default_hooks.fuse=None`.
"""

default_scope = "mmdet"
custom_imports = dict(imports=["mixdet.plugin"], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(
        type="SafeCheckpointHook",  # written to the side and renamed
        interval=1,
        max_keep_ckpts=3,
        save_best="coco/bbox_mAP",
        rule="greater",
    ),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    seed_iteration=dict(type="SeedIterationHook"),  # a resumed run repeats itself exactly
    checkpoint_fit=dict(type="CheckpointFitHook"),  # weights of another network are refused
    data_check=dict(type="DataCheckHook"),  # misspelt classes, lost boxes: before training
    finite_loss=dict(type="FiniteLossHook"),  # NaN stops the run where it appears
    sync_buffers=dict(type="SyncBuffersHook"),  # processes validate the statistics that are saved
    total_batch=dict(type="TotalBatchHook"),  # another batch than the recipe's is said
    interrupt=dict(type="InterruptHook"),  # Ctrl-C leaves a checkpoint to resume from
    fuse=dict(type="FuseHook"),  # tests compute the same, sooner
    keep_memory=dict(type="KeepMemoryHook"),  # on a CPU: tensors reuse what was freed
    report=dict(type="ReportHook"),  # the table and the contact sheet at the end
    visualization=dict(type="DetVisualizationHook"),
)

env_cfg = dict(
    cudnn_benchmark=True,  # one input size: the fastest convolution is worth finding
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
